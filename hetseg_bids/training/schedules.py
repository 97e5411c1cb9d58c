"""Learning rate as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

_WARMUP_SHARE = 10


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then cosine annealing, once or with restarts.

    Attributes
    ----------
    peak, floor : float
        Learning rates between which the cosine runs.
    warmup : int
        Steps; a tenth of the run at most.
    period : int or None
        Steps from restart to restart (Loshchilov & Hutter 2017); None anneals once, over
        the whole run.
    """

    peak: float = 2e-3
    floor: float = 0.0
    warmup: int = 400
    period: int | None = None

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step of a run of `steps`.

        Examples
        --------
        >>> schedule = Schedule(peak=0.002, warmup=100)
        >>> [round(schedule.rate(step, 1000), 6) for step in (0, 99, 550, 999)]
        [2e-05, 0.002, 0.001, 0.0]
        """
        warmup = min(self.warmup, steps // _WARMUP_SHARE)
        if step < warmup:
            return self.peak * (step + 1) / warmup
        if self.period is None:
            progress = (step - warmup) / max(1, steps - warmup)
        else:
            progress = (step - warmup) % self.period / self.period
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
