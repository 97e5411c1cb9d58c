"""Trained models: weights, how they were trained and are used (the plan), and checksums.

A model is a folder with ``weights.safetensors``, ``plan.json`` and ``MODEL_CARD.md``.
Weights are safetensors: reading them runs no code.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from hetseg_bids.errors import ModelError, OptionError
from hetseg_bids.files import atomic_path, read_json, write_json
from hetseg_bids.network.architecture import HetsegNet, NetworkConfig, to_channels_last
from hetseg_bids.network.fitted import Border, Pooling
from hetseg_bids.network.systems import System, system_named
from hetseg_bids.preprocessing.normalisation import BACKGROUND, CLIP
from hetseg_bids.structures.aseg import ASEG, WHOLE_DIVISION, WITH_PARTS, aseg_part
from hetseg_bids.structures.divisions import Division, undivided
from hetseg_bids.structures.head import HEAD
from hetseg_bids.structures.label_sets import LabelSet, Structure
from hetseg_bids.structures.label_tables import make_label_set

WEIGHTS_NAME = "weights.safetensors"
PLAN_NAME = "plan.json"
_PLAN_FORMAT = 1
HEAD_MODEL = "head"
"""The model of `segmentation.intracranial`, which isn't for ``--model``."""
_SMOOTHEST = 9  # times; a standard deviation of 1.5 mm
_PACKAGE = Path(__file__).parents[1]
_SHIPPED = (_PACKAGE / "_models", _PACKAGE.parent / "models")


@dataclass(frozen=True)
class Plan:
    """What inference must know about a model, and how it came to be.

    Attributes
    ----------
    name : str
    system : System
        Tells what the outputs mean; plan.json has its name.
    network : NetworkConfig
    patch : tuple of 2 int
        Rows and columns of the training stacks; inference pads smaller slices to this size.
    background, clip : float
        The intensity scale (`preprocessing.normalisation`).
    weights_sha256 : str
    provenance : dict
        Recipe, data, samples seen, software: for users and audits; not used by the program.
    label_set : LabelSet
        Structures of the outputs.
    pooling : Pooling or None
        How the views' flip maps become one; None: their second outputs are averaged.
    smoothing : int
        How often inference smooths the image (`smoothing.soften`).
    borders : dict of str to Border
        By structure; those that aren't named have `Border()`.
    mirror : bool
        Whether inference averages over the mirror image, too; False for networks that are meant to
        be fast and treat both sides alike without it.
    """

    name: str
    system: System
    network: NetworkConfig
    patch: tuple[int, int]
    background: float
    clip: float
    weights_sha256: str
    provenance: dict[str, Any]
    label_set: LabelSet = ASEG
    pooling: Pooling | None = None
    smoothing: int = 0
    borders: dict[str, Border] = field(default_factory=dict)
    mirror: bool = True

    @property
    def heteroscedastic(self) -> bool:
        """Whether the model has a second map for each task."""
        return self.system.heteroscedastic

    def division(self, structures: str) -> Division:
        """What is written of the model's labels.

        Parameters
        ----------
        structures : {"paper", "aseg"}
            The structures alone, or all labels of FreeSurfer's aseg.

        Raises
        ------
        OptionError
            If the word is another, or the model doesn't label all parts that an aseg has.
        """
        if structures == "paper":
            return undivided(self.label_set)
        if structures != "aseg":
            raise OptionError("paper or aseg is expected", option=f"--structures {structures}")
        if self.label_set != WITH_PARTS:
            raise OptionError(
                f"model {self.name} doesn't tell apart all that an aseg does",
                "choose another model or leave the option out",
                option=f"--structures {structures}",
            )
        return WHOLE_DIVISION

    def save(self, folder: Path) -> None:
        """Write plan.json."""
        facts = asdict(self) | {"system": self.system.name}
        structures = facts.pop("label_set")["structures"]
        if self.pooling is None:
            del facts["pooling"]
        content = {"format": _PLAN_FORMAT, "tasks": list(self.label_set.task_names)}
        names, parts = self.label_set.names, [s.name for s in self.label_set.parts]
        known = set(names) <= set(ASEG.names)
        if not (known and aseg_part(names, parts) == self.label_set):
            content["structures"] = structures
        write_json(folder / PLAN_NAME, content | facts)


@dataclass(frozen=True)
class Model:
    """A network ready for inference with its plan."""

    plan: Plan
    network: HetsegNet
    folder: Path

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device


def shipped_models() -> dict[str, Path]:
    """Names and folders of the models for ``--model`` that came with hetseg.

    Examples
    --------
    >>> folder = shipped_models()["label-flip"]
    >>> (folder / WEIGHTS_NAME).is_file()
    True
    """
    found = _shipped_folders()
    found.pop(HEAD_MODEL, None)
    return found


def _shipped_folders() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in _SHIPPED:
        for plan in sorted(root.glob(f"*/{PLAN_NAME}")):
            found.setdefault(plan.parent.name, plan.parent)
    return found


def model_folder(name: str, option: str = "--model") -> Path:
    """The folder of a shipped model's name, or of a path to a model folder.

    Parameters
    ----------
    name : str
    option : str
        The option that gave the name, for the message.

    Raises
    ------
    ModelError
        If there is neither.

    Examples
    --------
    >>> model_folder("label-flip").name
    'label-flip'
    """
    shipped = shipped_models()
    if name in shipped:
        return shipped[name]
    folder = Path(name)
    if (folder / PLAN_NAME).is_file():
        return folder
    known = ", ".join(shipped) or "none shipped"
    raise ModelError(
        f"not a shipped model ({known}) nor a folder with {PLAN_NAME}", option=f"{option} {name}"
    )


def load_model(name: str, device: torch.device, option: str = "--model") -> Model:
    """Load a model by name or folder.

    Parameters
    ----------
    name : str
    device : torch.device
    option : str
        See `model_folder`.

    Raises
    ------
    ModelError
        If the plan or the weights are missing, changed or don't fit each other.
    """
    model = _load(model_folder(name, option), device)
    if model.plan.label_set == HEAD:
        raise ModelError("labels no structures, only the inside of the skull", path=model.folder)
    return model


@lru_cache(maxsize=1)
def load_head_model(device: torch.device, folder: Path | None = None) -> Model:
    """The model of whole heads: the shipped one, or that of a folder.

    Raises
    ------
    ModelError
        See `load_model`.
    """
    folder = folder or _shipped_folders().get(HEAD_MODEL)
    if folder is None:
        raise ModelError(f"the model {HEAD_MODEL} is missing", "install hetseg again")
    return _load(folder, device)


def head_model_beside(model: Model) -> Model:
    """`load_head_model` on the device of another model."""
    return load_head_model(model.device)


def _load(folder: Path, device: torch.device) -> Model:
    plan = read_plan(folder)
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise ModelError(f"{WEIGHTS_NAME} is missing", "install the model again", path=folder)
    if file_sha256(weights) != plan.weights_sha256:
        raise ModelError(
            f"checksum differs from {PLAN_NAME}", "install the model again", path=weights
        )
    try:
        network = HetsegNet(plan.network)
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, TypeError, LookupError) as error:
        raise ModelError(f"weights don't fit the plan ({error})", path=weights) from None
    # numpy: torch would first spend 0.1 s on starting its threads
    if not all(np.isfinite(values.numpy()).all() for values in network.state_dict().values()):
        raise ModelError("weights aren't numbers", "train the model again", path=weights)
    network.eval().requires_grad_(False)
    return Model(plan, to_channels_last(network).to(device), folder)


def read_plan(folder: Path) -> Plan:
    """Read plan.json.

    Raises
    ------
    ModelError
        If it isn't a plan of this version of hetseg.
    """
    path = folder / PLAN_NAME
    try:
        content = read_json(path)
        if content.pop("format") != _PLAN_FORMAT:
            raise ValueError("unknown format")
        tasks = content.pop("tasks")
        label_set = _label_set(content.pop("structures", None), tasks)
        if tasks != list(label_set.task_names):
            raise ValueError("trained for other structures")
        network: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content["network"].items()
        }
        if not network.get("detail"):  # of plans from the time of networks that had it
            network.pop("detail", None)
        content["network"] = NetworkConfig(**network)
        content["system"] = system_named(content["system"])
        content["patch"] = tuple(content["patch"])
        if "pooling" in content:
            content["pooling"] = Pooling(**content["pooling"])
        borders = content.pop("borders", {}).items()
        content["borders"] = {name: Border(**border) for name, border in borders}
        if (content["background"], content["clip"]) != (BACKGROUND, CLIP):
            raise ValueError("trained on another intensity scale")
        plan = Plan(**content, label_set=label_set)
        if plan.network.n_outputs != plan.system.n_outputs(len(label_set.tasks)):
            raise ValueError(f"not as many outputs as {plan.system.name} has")
        if plan.pooling is not None and not plan.heteroscedastic:
            raise ValueError("pooling of flip maps, but no flip maps")
        if type(plan.smoothing) is not int or not 0 <= plan.smoothing <= _SMOOTHEST:
            raise ValueError(f"smoothing is a whole number of 0 to {_SMOOTHEST}")
        more = {} if plan.pooling is None else plan.pooling.structures
        if not {*plan.borders, *more} <= {row.name for row in label_set.rows}:
            raise ValueError("borders or pooling of other structures")
        if type(plan.mirror) is not bool:
            raise ValueError("mirror is true or false")
        return plan
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"not a usable model plan ({error})", path=path) from None


def _label_set(rows: list[dict[str, Any]] | None, tasks: list[str]) -> LabelSet:
    """The structures of a plan: its own, or those of the table that its tasks name."""
    if rows is None:
        first = tasks.index(ASEG.auxiliary[0].name)
        return aseg_part(tasks[:first], tasks[first + len(ASEG.auxiliary) :])
    structures = []
    for row in rows:
        red, green, blue = row["color"]
        members = tuple(row["members"])
        structures.append(Structure(row["name"], row["label"], members, (red, green, blue)))
    return make_label_set(tuple(structures), overlapping=True)


def save_model(folder: Path, plan: Plan, weights: dict[str, Tensor]) -> Plan:
    """Write weights and plan into a model folder.

    Parameters
    ----------
    folder : Path
    plan : Plan
    weights : dict of str to tensor
        A state dict of the network, on any device.

    Returns
    -------
    signed : Plan
        The plan with the checksum of the weights.
    """
    path = folder / WEIGHTS_NAME
    content = save({name: w.detach().cpu().contiguous() for name, w in weights.items()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)  # safetensors' own writer makes files for one user only
    signed = Plan(**{**_shallow(plan), "weights_sha256": file_sha256(path)})
    signed.save(folder)
    return signed


def _shallow(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__dataclass_fields__}


def file_sha256(path: Path) -> str:
    """Hex digest of a file.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "empty.nii.gz"
    >>> path.touch()
    >>> file_sha256(path)[:12]
    'e3b0c44298fc'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
