"""How much volumes change between sessions of a person, and whether that is more than noise.

Errors against a reference are shared by the scans of a person, so the interval of a difference
rests on the repeat noise (`volume_repeat_sd_mm3`) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from hetseg_bids.segmentation.uncertainty import NORMAL_975

LEAST_YEARS = 0.25  # repeat noise, divided by fewer, makes rates that mean nothing

COLUMNS: dict[str, str] = {
    "session_from": "Earlier session",
    "session_to": "Later session; first consecutive sessions, then the first and the last",
    "scans_from": "Scans of the earlier session, of which the mean is taken",
    "scans_to": "Scans of the later session, of which the mean is taken",
    "years": "Years between the sessions; n/a if the dataset doesn't say when they were",
    "index": "Label value in the dseg image",
    "name": "Structure",
    "hemisphere": "L or R; n/a for midline structures",
    "volume_from_mm3": "Volume in the earlier session, mm3",
    "volume_to_mm3": "Volume in the later session, mm3",
    "difference_mm3": "Later minus earlier volume, mm3",
    "difference_ci95_low_mm3": "Lower end of the 95 % interval of the difference, mm3, from repeat "
    "noise alone: difference_mm3 - smallest_change_mm3",
    "difference_ci95_high_mm3": "Upper end of that interval, mm3",
    "difference_percent": "Difference, percent of the earlier volume",
    "difference_ci95_low_percent": "Lower end of its 95 % interval",
    "difference_ci95_high_percent": "Upper end of its 95 % interval",
    "percent_per_year": "difference_percent divided by years (no compound interest); n/a with "
    f"less than {LEAST_YEARS:g} years",
    "percent_per_year_ci95_low": "Lower end of its 95 % interval",
    "percent_per_year_ci95_high": "Upper end of its 95 % interval",
    "smallest_change_mm3": "Smallest difference that is more than repeat noise, mm3: "
    "1.96 sqrt(sd_from^2 + sd_to^2), with sd the repeat noise of a volume",
    "smallest_change_percent": "The same, percent of the earlier volume",
    "more_than_noise": "increase or decrease if the difference is larger than "
    "smallest_change_mm3, else no; one of 20 is by chance alone",
}


@dataclass(frozen=True)
class Session:
    """What is measured in one session of a person.

    Attributes
    ----------
    name : str
        ``ses-Y``.
    years : float
        Since the first session; NaN if that isn't known.
    scans : int
        Number of its scans.
    table : DataFrame
        Columns ``index``, ``name``, ``hemisphere``, ``volume_mm3`` and ``volume_repeat_sd_mm3``,
        of the mean of its scans.
    """

    name: str
    years: float
    scans: int
    table: pd.DataFrame

    @classmethod
    def of(cls, name: str, years: float, tables: Sequence[pd.DataFrame]) -> Session:
        """The mean of scans; their noise is taken as independent.

        Parameters
        ----------
        name : str
        years : float
        tables : sequence of DataFrame
            As `morphometry.measure` makes them, all of the same structures.

        Examples
        --------
        >>> row = {"index": 16, "name": "brainstem", "hemisphere": None}
        >>> scans = [
        ...     pd.DataFrame([row | {"volume_mm3": volume, "volume_repeat_sd_mm3": sd}])
        ...     for volume, sd in ((20000.0, 120.0), (20200.0, 160.0))
        ... ]
        >>> mean = Session.of("ses-1", 0.0, scans).table
        >>> mean.loc[0, "volume_mm3"], mean.loc[0, "volume_repeat_sd_mm3"]
        (np.float64(20100.0), np.float64(100.0))
        """
        volumes, sds = (
            np.stack([table[column].to_numpy(float) for table in tables])
            for column in ("volume_mm3", "volume_repeat_sd_mm3")
        )
        table = tables[0][["index", "name", "hemisphere"]].assign(
            volume_mm3=volumes.mean(axis=0),
            volume_repeat_sd_mm3=np.sqrt((sds**2).sum(axis=0)) / len(tables),
        )
        return cls(name, years, len(tables), table.reset_index(drop=True))


def change_table(sessions: Sequence[Session]) -> pd.DataFrame:
    """Changes between consecutive sessions, then, of three or more, from the first to the last.

    Parameters
    ----------
    sessions : sequence of Session
        At least two, in order.

    Returns
    -------
    table : DataFrame
        One row for each pair and structure; columns as in `COLUMNS`.
    """
    pairs = list(pairwise(sessions))
    if len(sessions) > 2:
        pairs.append((sessions[0], sessions[-1]))
    return pd.concat([change(*pair) for pair in pairs], ignore_index=True)


def change(earlier: Session, later: Session) -> pd.DataFrame:
    """Change between two sessions: one row per structure, columns as in `COLUMNS`.

    Examples
    --------
    >>> row = {"index": 17, "name": "left_hippocampus", "hemisphere": "L"}
    >>> first, second = (
    ...     pd.DataFrame([row | {"volume_mm3": volume, "volume_repeat_sd_mm3": sd}])
    ...     for volume, sd in ((4000.0, 30.0), (3880.0, 40.0))
    ... )
    >>> table = change(Session("ses-1", 0, 1, first), Session("ses-2", 2, 1, second))
    >>> table[["difference_mm3", "smallest_change_mm3", "more_than_noise"]]
       difference_mm3  smallest_change_mm3 more_than_noise
    0          -120.0              97.9982        decrease
    >>> rate = ["percent_per_year", "percent_per_year_ci95_low", "percent_per_year_ci95_high"]
    >>> table.loc[0, rate].astype(float).round(2).to_list()
    [-1.5, -2.72, -0.28]
    """
    before, after = (s.table["volume_mm3"] for s in (earlier, later))
    noise = NORMAL_975 * np.hypot(*(s.table["volume_repeat_sd_mm3"] for s in (earlier, later)))
    difference = after - before
    percent = 100 / before.where(before > 0)
    years = later.years - earlier.years
    rate = percent / (years if years >= LEAST_YEARS else float("nan"))
    facts = {
        "session_from": earlier.name,
        "session_to": later.name,
        "scans_from": earlier.scans,
        "scans_to": later.scans,
        "years": years,
        "volume_from_mm3": before,
        "volume_to_mm3": after,
        "difference_mm3": difference,
        "difference_ci95_low_mm3": difference - noise,
        "difference_ci95_high_mm3": difference + noise,
        "difference_percent": percent * difference,
        "difference_ci95_low_percent": percent * (difference - noise),
        "difference_ci95_high_percent": percent * (difference + noise),
        "percent_per_year": rate * difference,
        "percent_per_year_ci95_low": rate * (difference - noise),
        "percent_per_year_ci95_high": rate * (difference + noise),
        "smallest_change_mm3": noise,
        "smallest_change_percent": percent * noise,
        "more_than_noise": np.select(
            [noise.isna(), difference > noise, difference < -noise],
            ["n/a", "increase", "decrease"],
            "no",
        ),
    }
    return earlier.table[["index", "name", "hemisphere"]].assign(**facts)[list(COLUMNS)]
