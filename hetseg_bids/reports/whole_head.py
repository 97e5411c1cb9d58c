"""The intracranial volume as a scan's page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from hetseg_bids.outputs.intracranial import reason_of
from hetseg_bids.segmentation.wholes import INTRACRANIAL

_MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class IntracranialVolume:
    """As text.

    Attributes
    ----------
    value : str
        ``1,512 ml``, or ``n/a``.
    about : str
        Its interval, or why it isn't known.
    """

    value: str
    about: str

    @classmethod
    def of(cls, wholes: pd.DataFrame, record: Mapping[str, Any]) -> Self:
        """From the rows of the whole head and the sidecar of the dseg.

        Examples
        --------
        >>> ends = {"volume_ci95_low_mm3": [1.4e6], "volume_ci95_high_mm3": [1.6e6]}
        >>> rows = pd.DataFrame({"name": [INTRACRANIAL], "volume_mm3": [1.5e6]} | ends)
        >>> found = IntracranialVolume.of(rows, {"HetsegIntracranialVolume": 1.5e6})
        >>> found.value, found.about
        ('1,500 ml', '95 % interval of a reference: 1,400 to 1,600 ml')
        """
        known = wholes[wholes["name"] == INTRACRANIAL]
        why = reason_of(record)
        if known.empty or why:
            return cls("n/a", why or "not in the table")
        volume, low, high = (
            float(known[column].iloc[0]) / _MM3_PER_ML
            for column in ("volume_mm3", "volume_ci95_low_mm3", "volume_ci95_high_mm3")
        )
        return cls(
            f"{volume:,.0f} ml", f"95 % interval of a reference: {low:,.0f} to {high:,.0f} ml"
        )
