"""How long requests wait for one of c places: Erlang's C, corrected for service times that are not exponential.

M/M/c: Erlang (1917). M/D/c: Cosmetatos, "Some approximate equilibrium results for the multi-server queue (M/G/r)",
Operational Research Quarterly 27 (1976). M/G/c from these two: Kimura, "A two-moment approximation for the mean waiting
time in the GI/G/s queue", Management Science 32 (1986); it is Pollaczek and Khinchine's exact result where c is 1, and
close to Allen and Cunneen's simpler (1 + cv²) / 2 elsewhere (Allen, "Probability, Statistics, and Queueing Theory",
1990). Tails are taken as exponential.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from extproc.planning.lengths import Floats

NEVER_FULL = 8  # standard deviations of the number of places that are taken: beyond, the chance is below 1e-15


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing with probability 1 - `chance`, else exponential with mean `mean_ms`."""

    chance: float
    mean_ms: float

    def beyond(self, ms: Floats) -> Floats:
        """The probability of a longer wait, for each of many times; 1 below zero."""
        if self.chance * self.mean_ms == 0:
            return (ms < 0).astype(np.float64)
        return np.where(ms < 0, 1.0, self.chance * np.exp(-np.maximum(ms, 0.0) / self.mean_ms))


NONE = Wait(0.0, 0.0)


def erlang_c(places: int, load: float) -> float:
    """The chance that an arrival finds all places taken; `load` is arrivals times service time, below `places`."""
    if load <= 0 or places - load > NEVER_FULL * math.sqrt(places):
        return 0.0
    # 1 / B = sum over k of c! / (c - k)! / load^k, Erlang's B; it grows beyond all bounds where hardly anybody waits.
    with np.errstate(over="ignore"):
        inverse_b = 1.0 + float(np.cumprod(np.arange(places, 0, -1) / load).sum())
    busy = load / places
    return 1.0 / (1.0 + (1.0 - busy) * (inverse_b - 1.0))


def mgc(places: int, load: float, service_ms: float, squared_cv: float) -> Wait:
    """The wait in an M/G/c queue whose `load` is below `places`."""
    busy, chance = load / places, erlang_c(places, load)
    exponential_ms = chance * service_ms / (places - load)
    if chance == 0 or exponential_ms == 0:
        return NONE
    cosmetatos = (1 - busy) * (places - 1) * (math.sqrt(4 + 5 * places) - 2) / (16 * busy * places)
    constant_ms = (1 + min(cosmetatos, 1.0)) / 2 * exponential_ms
    mean_ms = (1 + squared_cv) / ((1 - squared_cv) / constant_ms + 2 * squared_cv / exponential_ms)
    return Wait(chance, mean_ms / chance)


def gg1(busy: float, service_ms: float, arrivals_squared_cv: float, service_squared_cv: float) -> Wait:
    """The wait for one server that is `busy` below 1 of the time, by Allen and Cunneen.

    Where arrivals are Poisson's (their squared variation 1) it is Pollaczek and Khinchine's, which is exact.
    """
    if busy <= 0:
        return NONE
    return Wait(busy, service_ms / (1 - busy) * (arrivals_squared_cv + service_squared_cv) / 2)


def both(first: Wait, second: Wait) -> Wait:
    """The sum of two independent waits: its chance and mean are exact, its tail is taken as exponential again."""
    chance = 1 - (1 - first.chance) * (1 - second.chance)
    mean_ms = first.chance * first.mean_ms + second.chance * second.mean_ms
    return Wait(chance, mean_ms / chance) if chance > 0 else NONE
