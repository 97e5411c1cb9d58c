"""The 28 structures of a table of all labels of an aseg: what scans are judged and compared by.

A vessel of ten voxels is uncertain in every scan, and limits are known of whole structures only.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from hetseg_bids.structures.aseg import ASEG, WHOLE_DIVISION, is_whole


def of_structures(table: pd.DataFrame) -> pd.DataFrame:
    """A table of structures.

    Parameters
    ----------
    table : DataFrame
        As `morphometry.measure` makes it: ``name``, ``volume_mm3``, ``expected_dice``.

    Returns
    -------
    table : DataFrame
        These three columns for each of the 28 structures, where the labels were all of an aseg:
        the sum of volumes, and the mean of expected Dice weighted by volume. Otherwise the table
        that was given.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import WHOLE_ASEG
    >>> names = list(WHOLE_ASEG.names)
    >>> table = pd.DataFrame({"name": names, "volume_mm3": 100.0, "expected_dice": 0.5})
    >>> table.loc[names.index("cc_anterior"), ["volume_mm3", "expected_dice"]] = 400.0, 0.9
    >>> found = of_structures(table).set_index("name").loc["corpus_callosum"]
    >>> found.to_dict()
    {'volume_mm3': 800.0, 'expected_dice': 0.7}
    """
    if not is_whole(table["name"]):
        return table
    values = table.set_index("name")[["volume_mm3", "expected_dice"]].astype(float)
    rows = []
    for name in ASEG.names:
        labels = values.loc[list(WHOLE_DIVISION.divided.get(name, (name,)))]
        volume = labels["volume_mm3"].sum()
        weights = labels["volume_mm3"] if volume else None
        rows.append((name, volume, np.average(labels["expected_dice"], weights=weights)))
    return pd.DataFrame(rows, columns=["name", "volume_mm3", "expected_dice"])
