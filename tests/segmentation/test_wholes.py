"""Rows of the morph table for the whole head."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hetseg_bids.segmentation.intracranial import Intracranial
from hetseg_bids.segmentation.morphometry import COLUMNS
from hetseg_bids.segmentation.uncertainty import StructureUncertainty
from hetseg_bids.segmentation.wholes import BRAIN, SUMS, labels_of, sums_of, whole_rows, with_wholes
from hetseg_bids.structures.aseg import ASEG, WHOLE_ASEG


def table_of(names) -> pd.DataFrame:
    """Each label is 10 times as large as its id, without a hemisphere that matters."""
    ids = {s.name: s.label for s in WHOLE_ASEG.structures} | {
        s.name: s.label for s in ASEG.structures
    }
    volume = np.array([10.0 * ids[name] for name in names])
    facts = {
        "index": [ids[name] for name in names],
        "name": list(names),
        "volume_mm3": volume,
        "volume_sd_mm3": 3.0,
        "volume_ci95_low_mm3": volume - 1.959964 * 3,
        "volume_ci95_high_mm3": volume + 1.959964 * 3,
        "volume_repeat_sd_mm3": 1.0,
    }
    return pd.DataFrame(facts).reindex(columns=list(COLUMNS))


def found(volume: float = 1.5e6) -> Intracranial:
    u = StructureUncertainty(volume / 8, 0.02, 0.98, volume / 8, 3000.0)
    return Intracranial(np.ones((2, 2, 2), np.uint8), volume, u, None)


def test_sums_have_the_labels_that_freesurfer_counts():
    # FreeSurfer: BrainSeg has no brainstem, BrainSegNotVent no ventricles, choroid plexus and CSF
    names = WHOLE_ASEG.names
    everything = set(names)
    assert everything - set(labels_of(BRAIN, names)) == {"brainstem"}
    fluid = {n for n in names if "ventricle" in n or "choroid" in n} | {"csf"}
    assert set(labels_of(BRAIN, names)) - set(labels_of("total_brain", names)) == fluid
    grey = set(labels_of("total_grey", names))
    subcortical = set(labels_of("subcortical_grey", names))
    assert len(subcortical) == 2 * 8
    assert "brainstem" not in subcortical
    assert grey - subcortical == {
        f"{side}_{part}"
        for side in ("left", "right")
        for part in ("cerebral_cortex", "cerebellum_cortex")
    }
    white = labels_of("cerebral_white", names)
    assert sum(n.startswith("cc_") for n in white) == 5
    assert {"left_cerebral_white_matter", "wm_hypointensities"} < set(white)
    assert "left_cerebellum_white_matter" not in white


def test_grey_matter_of_the_cerebellum_is_never_guessed():
    assert labels_of("total_grey", ASEG.names) == []
    rows = whole_rows(table_of(ASEG.names)).set_index("name")
    assert np.isnan(rows.loc["total_grey", "volume_mm3"])
    assert rows.loc["total_brain", "volume_mm3"] > 0
    # a user's own structures: no sum of theirs is a brain
    assert all(labels_of(whole, ["left_thalamus", "right_thalamus"]) == [] for whole in SUMS)
    assert sums_of(["left_thalamus", "right_thalamus"]) == ()


def test_both_sides_err_together_and_structures_apart():
    rows = whole_rows(table_of(ASEG.names)).set_index("name")
    row = rows.loc["cerebral_white"]
    assert row["volume_mm3"] == 10 * (2 + 41 + 255)
    assert row["volume_sd_mm3"] == pytest.approx(np.hypot(6, 3))
    middle = (row["volume_ci95_low_mm3"] + row["volume_ci95_high_mm3"]) / 2
    assert middle == pytest.approx(row["volume_mm3"])
    assert row["volume_ci95_high_mm3"] - middle == pytest.approx(1.959964 * np.hypot(6, 3))
    assert row["volume_repeat_sd_mm3"] == pytest.approx(np.hypot(2, 1))


def test_a_model_without_flip_maps_has_sums_without_intervals():
    table = table_of(ASEG.names)
    table["volume_sd_mm3"] = np.nan
    row = whole_rows(table).set_index("name").loc["total_brain"]
    assert row["volume_mm3"] > 0
    assert np.isnan(row["volume_ci95_low_mm3"])


def test_the_intracranial_row_is_there_with_and_without_a_volume():
    table = table_of(ASEG.names)
    known = whole_rows(table, found()).set_index("name").loc["intracranial"]
    assert known["volume_mm3"] == 1.5e6
    assert known["volume_ci95_low_mm3"] < 1.5e6 < known["volume_ci95_high_mm3"]
    assert 0 < known["volume_repeat_sd_mm3"] < known["volume_sd_mm3"]
    unknown = whole_rows(table, Intracranial.unknown("stripped")).set_index("name")
    assert np.isnan(unknown.loc["intracranial", "volume_mm3"])
    both = with_wholes(table, whole_rows(table, found()))
    assert list(both["name"]) == [*ASEG.names, "intracranial", *SUMS]
    assert str(both["index"].dtype) == "Int64", "ids would be written as 2.0"
