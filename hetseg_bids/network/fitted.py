"""Numbers of a plan that were fitted to a model's weights: how its outputs become q and borders."""

from __future__ import annotations

from dataclasses import dataclass, field

_MOST_OFFSET = 4.0  # logit
_MOST_MORE = 4.0  # log-odds


@dataclass(frozen=True)
class Pooling:
    """How the ensemble's q follows from the views' forecasts and the ensemble's logit.

    The log-odds of a structure are ``views`` times the mean of the views' `evidence` plus
    ``ensemble`` times the mean label logit, and those of the answer given are larger by ``answer``:
    the ensemble makes fewer errors than the views, also where all of them are in doubt.  Views
    that contradict each other make q large, and views that agree make it smaller than that of each
    view.  `benchmarks/pooling.py` fits the numbers.

    Attributes
    ----------
    views, ensemble : float
        The two factors.
    answer : float
        Log-odds.
    structures : dict of str to float
        Added to `answer` for a structure: how well references agree differs more between them than
        views can know.
    """

    views: float
    ensemble: float
    answer: float = 0.0
    structures: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what isn't a number for each structure."""
        if not all(abs(more) <= _MOST_MORE for more in self.structures.values()):
            raise ValueError(f"pooling: at most {_MOST_MORE} may be added for a structure")


@dataclass(frozen=True)
class Border:
    """How the border of a structure follows from its logits; `benchmarks/borders.py` compares.

    Attributes
    ----------
    smoothing : float
        Share of the smoothing of logits (`smoothing.smooth_`), 0-1.
    offset : float
        Added to the label logit: a network that is in doubt labels too little.
    """

    smoothing: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no border is."""
        if not (0 <= self.smoothing <= 1 and abs(self.offset) <= _MOST_OFFSET):
            raise ValueError(f"{self} isn't a border")
