"""The 28 structures of a table of all labels of an aseg: what scans are judged and compared by.

A vessel of ten voxels is uncertain in every scan, and limits are known of whole structures only.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from hetseg_bids.structures.aseg import ASEG, WHOLE_DIVISION, is_whole

_COLUMNS = ("volume_mm3", "expected_dice", "lesion_mm3", "lesion_share")


def of_structures(table: pd.DataFrame) -> pd.DataFrame:
    """A table of structures.

    Parameters
    ----------
    table : DataFrame
        As `morphometry.measure` makes it: ``name``, ``volume_mm3``, ``expected_dice``, and
        ``lesion_mm3``, ``lesion_share`` where a lesion was given.

    Returns
    -------
    table : DataFrame
        These columns for each of the 28 structures, where the labels were all of an aseg: sums of
        volumes, the mean of expected Dice weighted by volume, and the share of the whole that a
        lesion covers. Otherwise the table that was given.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import WHOLE_ASEG
    >>> names = list(WHOLE_ASEG.names)
    >>> table = pd.DataFrame({"name": names, "volume_mm3": 100.0, "expected_dice": 0.5})
    >>> table.loc[names.index("cc_anterior"), ["volume_mm3", "expected_dice"]] = 400.0, 0.9
    >>> found = of_structures(table).set_index("name").loc["corpus_callosum"]
    >>> found[["volume_mm3", "expected_dice"]].to_dict()
    {'volume_mm3': 800.0, 'expected_dice': 0.7}
    """
    if not is_whole(table["name"]):
        return table
    values = table.set_index("name").reindex(columns=list(_COLUMNS)).astype(float)
    rows = []
    for name in ASEG.names:
        labels = values.loc[list(WHOLE_DIVISION.divided.get(name, (name,)))]
        volume = labels["volume_mm3"].sum()
        weights = labels["volume_mm3"] if volume else None
        dice = np.average(labels["expected_dice"], weights=weights)
        lesion, share = labels["lesion_mm3"], labels["lesion_share"]
        place = (lesion / share).where(share > 0, labels["volume_mm3"]).sum()
        covered = lesion.sum(min_count=1)  # NaN without a lesion
        rows.append((name, volume, dice, covered, covered / place if place else covered))
    return pd.DataFrame(rows, columns=["name", *_COLUMNS])
