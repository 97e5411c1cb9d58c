"""Checkpoints of a training run: tensors in safetensors, the rest in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hetseg_bids.files import atomic_path

_FORMAT = "hetseg-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after `step` optimiser steps.

    Attributes
    ----------
    step : int
    schedule : tuple of (step, samples)
        Samples planned from each step on; more than one entry if a resume changed them.
    config : str
        JSON of the configuration but for the samples, compared on resume.
    network, average : dict of tensors
        Current weights and their moving average.
    optimizer : dict of (parameter name / state name) to tensor

    Examples
    --------
    >>> now, average = {"head.bias": torch.ones(2)}, {"head.bias": torch.zeros(2)}
    >>> path = getfixture("tmp_path") / "checkpoint.safetensors"
    >>> Checkpoint(10, ((0, 6000),), "{}", now, average, {}).save(path)
    >>> Checkpoint.load(path).network
    {'head.bias': tensor([1., 1.])}
    """

    step: int
    schedule: tuple[tuple[int, int], ...]
    config: str
    network: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]

    def save(self, path: Path) -> None:
        """Write atomically, so that a kill leaves the previous checkpoint."""
        tensors = {
            f"{group}/{name}": tensor.detach().cpu().contiguous()
            for group in ("network", "average", "optimizer")
            for name, tensor in getattr(self, group).items()
        }
        metadata = {
            "format": _FORMAT,
            "step": str(self.step),
            "schedule": json.dumps(self.schedule),
            "config": self.config,
        }
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint.

        Raises
        ------
        ValueError
            If the file isn't a hetseg checkpoint.
        """
        groups: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"{path} is not a checkpoint of hetseg-train")
            for key in file.keys():  # noqa: SIM118 (safe_open isn't a mapping)
                group, _, name = key.partition("/")
                groups[group][name] = file.get_tensor(key)
        schedule = tuple((int(a), int(b)) for a, b in json.loads(metadata["schedule"]))
        return cls(int(metadata["step"]), schedule, metadata["config"], **groups)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]
) -> dict[str, Tensor]:
    """Flatten an optimiser's state to named tensors."""
    return {
        f"{names[cast(nn.Parameter, parameter)]}/{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer_(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str], tensors: dict[str, Tensor]
) -> None:
    """Undo `optimizer_tensors`."""
    parameters = {name: parameter for parameter, name in names.items()}
    for key, value in tensors.items():
        name, _, state = key.rpartition("/")
        parameter = parameters[name]
        # Adam keeps its step count on the CPU; the rest has its parameter's memory order, or
        # the resumed run would round otherwise
        restored = value.clone() if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][state] = restored
