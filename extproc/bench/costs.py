"""What an estimate costs, beside decoding the same body and nothing else."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from extproc.bench import asks
from extproc.bench.prompts import facts_of
from extproc.bench.rules import MODEL
from extproc.core.estimate import estimate
from extproc.core.lessons import Lessons

BODIES = (("english", 4_000), ("chinese", 4_000), ("english", 1_000_000), ("chinese", 1_000_000))
REPEATS = 60
REPEAT_S = 0.001


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds for one body; the least of REPEATS."""

    kind: str
    bytes: int
    estimate: float  # reading the body, and estimating
    msgspec: float  # decoding all of it
    json: float


def costs(seed: int) -> tuple[Cost, ...]:
    return tuple(_cost(kind, asks.of_size(kind, size, seed).body) for kind, size in BODIES)


def _cost(kind: str, body: bytes) -> Cost:
    believed = Lessons().beliefs("", facts_of(body).category)  # a sidecar has them at hand
    timed = (
        lambda: estimate(facts_of(body), MODEL, believed),
        lambda: msgspec.json.decode(body),
        lambda: json.loads(body),
    )
    return Cost(kind, len(body), *map(_least_us, timed))


def _least_us(function: Callable[[], object]) -> float:
    """Each repeat is shorter than a scheduler's time slice: on a busy machine, too, some are not interrupted."""
    timer = timeit.Timer(function)
    number = max(1, int(REPEAT_S / timer.timeit(1)))
    return min(timer.repeat(REPEATS, number)) / number * 1e6
