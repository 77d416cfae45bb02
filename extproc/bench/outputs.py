"""How often an answer is no longer than the bound that its tenant's answers so far have taught."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from extproc.core.estimate import OUTPUT_OBSERVATIONS, PRIOR_OUTPUT
from extproc.core.lessons import learn_output

LIFE = 100  # answers of a short life
SHORT_LIVES = 200
LONG_LIFE = 20_000
MEDIAN_TOKENS = 200.0
SPREADS = (0.3, 0.8, 1.5)  # of the logarithm of a length


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of answers within the bound, from the twentieth of a life on."""

    lengths: str
    short_lives: float  # of LIFE answers each
    long_life: float
    answers: int  # of the long life


def drawn(seed: int) -> Mapping[str, Sequence[float]]:
    """Lengths of log-normal answers, in tokens."""
    draw = np.random.default_rng(seed)
    return {
        f"log-normal, spread {spread}": np.ceil(draw.lognormal(math.log(MEDIAN_TOKENS), spread, LONG_LIFE)).tolist()
        for spread in SPREADS
    }


def coverage(name: str, lengths: Sequence[float]) -> Coverage:
    """Short lives are consecutive pieces of the long one."""
    lives = [lengths[at : at + LIFE] for at in range(0, len(lengths) - LIFE + 1, LIFE)][:SHORT_LIVES]
    return Coverage(
        name, _share(within for life in lives for within in _within(life)), _share(_within(lengths)), len(lengths)
    )


def _within(lengths: Iterable[float]) -> list[bool]:
    known, found = PRIOR_OUTPUT, []
    for length in lengths:
        if known.n >= OUTPUT_OBSERVATIONS:
            found.append(length <= math.ceil(known.mean))
        known = learn_output(known, length)
    return found


def _share(found: Iterable[bool]) -> float:
    return float(np.mean(list(found)))
