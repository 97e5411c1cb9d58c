"""One model from several: the mean of their weights.

Source: Wortsman et al. 2022, "Model soups": if several models were trained further from the same
weights, the mean of their weights is often better than each of them, most of all on other data.

Examples
--------
>>> plan = average_models(["label-flip", "label-flip"], getfixture("tmp_path"))
>>> plan.name, plan.provenance["weights"]
('label-flip', 'mean of 2 models')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hetseg_bids import __version__
from hetseg_bids.errors import COLON, ModelError, OptionError
from hetseg_bids.network.models import Model, Plan, load_model, save_model
from hetseg_bids.preprocessing.transfer import CPU


def average_models(names: Sequence[str], folder: Path, name: str | None = None) -> Plan:
    """Write the model whose weights are the mean of others'; returns its plan.

    Parameters
    ----------
    names : sequence of str
        Two or more shipped models or model folders: runs of one ``--init``, or that model itself.
    folder : Path
    name : str, optional
        Of the new model; by default that of their system.

    Raises
    ------
    OptionError
        If there are fewer than two.
    ModelError
        If one can't be loaded, or they aren't networks of one kind for the same structures,
        aren't used in the same way, or don't come from the same weights.
    """
    if len(names) < 2:
        raise OptionError("--average", "give two models at least", form=COLON)
    models = [load_model(one, CPU, "--average") for one in names]
    first = models[0]
    for other in models[1:]:
        if _kind(other) != _kind(first):
            raise ModelError(
                "not of the same system, network, patch, structures and smoothing as "
                f"{first.folder}; only such models have a mean",
                path=other.folder,
            )
        if not _origins(other) & _origins(first):
            raise ModelError(
                f"not trained from the same --init as {first.folder}; the mean of unrelated "
                "weights is no network",
                path=other.folder,
            )
    weights = [model.network.state_dict() for model in models]
    mean = {key: torch.stack([w[key] for w in weights]).mean(dim=0) for key in weights[0]}
    parts = [
        {"weights_sha256": m.plan.weights_sha256, "provenance": m.plan.provenance} for m in models
    ]
    provenance = {
        "hetseg": __version__,
        "torch": torch.__version__,
        "weights": f"mean of {len(models)} models",
        "origins": sorted(set.intersection(*map(_origins, models))),
        "models": parts,
    }
    plan = replace(
        first.plan,
        name=name or first.plan.system.name,
        provenance=provenance,
        pooling=None,  # fitted to other weights
    )
    folder.mkdir(parents=True, exist_ok=True)
    return save_model(folder, plan, mean)


def _kind(model: Model) -> tuple[object, ...]:
    plan = model.plan
    return plan.system, plan.network, plan.patch, plan.label_set, plan.smoothing, plan.mirror


def _origins(model: Model) -> set[str]:
    """Checksums of the model's weights and of those it started from."""
    provenance = model.plan.provenance
    started = provenance.get("training", {}).get("initial_weights")
    return {
        model.plan.weights_sha256,
        *provenance.get("origins", ()),
        *([started] if started else ()),
    }
