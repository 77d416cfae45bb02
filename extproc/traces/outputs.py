"""How a request's total tokens are split into prompt and answer: a model of our own, fitted to the answers' mean.

Answers are lognormal and do not depend on the total, as far as they fit it: in Azure's trace of 2023 the correlation
of the two is -0.09. A draw that leaves no prompt is replaced by one that is uniform over the answers that do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extproc.traces.quantiles import Quantiles
from extproc.traces.trace import Tokens, TraceError

GRID = (np.arange(512) + 0.5) / 512  # shares at which a distribution of totals is looked at
HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is known of answers."""

    mean_tokens: float
    variation: float = 1.0  # standard deviation over mean, before totals limit it

    def fitted(self, totals: Quantiles) -> Answers:
        """Raises TraceError where no answers within these totals have this mean."""
        grid, sigma = totals.tokens_at(GRID), math.sqrt(math.log1p(self.variation**2))
        low = high = math.log(self.mean_tokens) - sigma**2 / 2  # right where no total limits an answer
        while Answers(high, sigma).mean_within(grid) < self.mean_tokens:
            low, high = high, high + math.log(2)
            if high > math.log(grid[-1]) + 4 * sigma:
                raise TraceError(
                    f"{totals.name}: answers of {self.mean_tokens:g} tokens on average do not fit totals of"
                    f" {grid.mean():.0f}; about half of that is the most"
                )
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (
                (low, middle) if Answers(middle, sigma).mean_within(grid) >= self.mean_tokens else (middle, high)
            )
        return Answers(high, sigma)


@dataclass(frozen=True, slots=True)
class Answers:
    """A lognormal of lengths: mean and deviation of the logarithm."""

    mu: float
    sigma: float

    def mean_within(self, totals: Tokens) -> float:
        """The mean of what `draw` gives: the lognormal's partial expectation, and half the total where it is above."""
        room = (np.log(totals) - self.mu) / self.sigma
        partial = math.exp(self.mu + self.sigma**2 / 2) * _below(room - self.sigma)
        return float(np.mean(partial + (1 - _below(room)) * totals / 2))

    def draw(self, totals: Tokens, source: np.random.Generator) -> Tokens:
        """At least 1 each, and at least 1 less than the total."""
        wanted = np.rint(source.lognormal(self.mu, self.sigma, len(totals)))
        instead = source.integers(1, totals)
        return np.where(wanted < totals, np.maximum(wanted, 1), instead).astype(np.int64)


def _below(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard normal distribution's share below z."""
    return np.array([0.5 * math.erfc(-one / math.sqrt(2)) for one in z])
