"""The intracranial volume in files: its mask, and what the sidecars say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hetseg_bids.images import Grid
from hetseg_bids.network.models import Plan
from hetseg_bids.outputs.derivatives import (
    OutputPaths,
    Provenance,
    save_image,
    write_mask_sidecar,
)
from hetseg_bids.segmentation.intracranial import Intracranial

_VOLUME, _REASON = "HetsegIntracranialVolume", "HetsegIntracranialReason"
_MODEL = "HetsegHeadModelSHA256"


def head_facts(found: Intracranial, plan: Plan) -> dict[str, Any]:
    """What every sidecar says: the volume in mm3 or null, why it isn't known, and the weights."""
    volume = None if found.mask is None else round(found.volume_mm3, 1)
    return {_VOLUME: volume, _REASON: found.reason, _MODEL: plan.weights_sha256}


def volume_of(record: Mapping[str, Any]) -> float:
    """The intracranial volume in a sidecar, mm3; NaN where it isn't known or wasn't measured.

    Examples
    --------
    >>> volume_of({"HetsegIntracranialVolume": 1.5e6}), volume_of({})
    (1500000.0, nan)
    """
    volume = record.get(_VOLUME)
    return float("nan") if volume is None else float(volume)


def reason_of(record: Mapping[str, Any]) -> str:
    """Why a sidecar has no intracranial volume; empty where it has one.

    Examples
    --------
    >>> reason_of({})
    'results of an earlier version'
    """
    if not np.isnan(volume_of(record)):
        return ""
    return str(record.get(_REASON) or "results of an earlier version")


def head_model_of(record: Mapping[str, Any]) -> str | None:
    """Checksum of the head model's weights that a sidecar names."""
    return record.get(_MODEL)


def measured_with(record: Mapping[str, Any], plan: Plan, paths: OutputPaths) -> bool:
    """Whether a sidecar is of these weights, and the mask is there where it has a volume."""
    known = not np.isnan(volume_of(record))
    return head_model_of(record) == plan.weights_sha256 and (
        not known or paths.intracranial.is_file()
    )


def write_intracranial(
    paths: OutputPaths, found: Intracranial, grid: Grid, provenance: Provenance
) -> None:
    """Write the mask with its sidecar, where there is one."""
    if found.mask is None:
        return
    save_image(paths.intracranial, found.mask, grid, intent="label")
    write_mask_sidecar(paths.intracranial, provenance, "Inside of the skull", "Intracranial")
