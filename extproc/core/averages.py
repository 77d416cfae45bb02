"""Bias-corrected exponential averages, the form in which most is learned."""

from __future__ import annotations

from dataclasses import dataclass

BETA = 0.98  # a window of about 50 observations
OTHERS_COUNT = 2  # observations of its own, as many of which outweigh what an entitlement is told by others


@dataclass(frozen=True, slots=True)
class Average:
    """Of n observations; n = 0 is a prior."""

    n: int
    mean: float
    deviation: float = 0.0  # mean absolute


def weight(n: int, beta: float = BETA) -> float:
    """The weight of the newest of n observations: a plain mean at first, then the newest weighs 1 - beta."""
    return (1 - beta) / (1 - beta**n)


def own_part(n: int) -> float:
    """How much n observations of an entitlement's own count, against what others taught."""
    return n / (n + OTHERS_COUNT)
