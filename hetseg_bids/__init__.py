"""hetseg: brain segmentation with the probability that each label is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetseg_bids.api import Segmented, segment, segment_all

__version__ = "0.1.0"
__all__ = ["Segmented", "segment", "segment_all"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: only programs that segment wait for it
    if name in __all__:
        from hetseg_bids import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
