"""The smallest number of equal servers that keeps a target, found by simulation.

The rules are those of `extproc.planning.sizing`: a share of requests may have its first token late; and in no pool may
others hold up more than a share of its requests, or all that is long could be left to wait for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from extproc.fleet import delays
from extproc.fleet.fleet import Fleet, Pool
from extproc.fleet.loads import at_once
from extproc.fleet.parts import taken
from extproc.fleet.routing import ByLength
from extproc.fleet.simulation import Outcome, Progress, run
from extproc.fleet.summary import percentile, ttft_ms
from extproc.traces.trace import Trace

SATURATING = 20_000  # requests at once for the server whose capacity is measured
FEW = 50  # requests
WARM_UP = 0.5  # share of the requests that fill the fleet, and do not count
STRIDE = 0.02  # of the first guess: by how much more is tried first
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Target:
    ttft_ms: float
    late: float = 0.01  # share of a pool's requests whose first token may take longer: a P99
    held_up: float = 0.05  # share of them that others may delay by more than that, and than their own reading takes


@dataclass(frozen=True, slots=True)
class Sized:
    """A pool with as few servers as keep the target."""

    pool: Pool
    one_serves: float  # requests a second of a saturated server
    late: float  # share of its requests
    held_up: float
    ttft_p99_ms: float

    @property
    def servers(self) -> int:
        return self.pool.servers

    def keeps(self, target: Target) -> bool:
        return self.late <= target.late and self.held_up <= target.held_up


def smallest(trace: Trace, pool: Pool, target: Target, progress: Progress = lambda _: None) -> Sized:
    """Never fewer servers than could serve the requests for ever: a short run would not show that a queue grows."""
    one = one_serves(trace, pool, progress)
    fewest = max(1, math.ceil(trace.requests_per_second / one * (1 - ROUNDING)))
    reading_ms = delays.prefill_ms(pool.timing, trace.prompt_tokens.astype(np.float64))

    def tried(servers: int) -> Sized:
        own = replace(pool, servers=servers)
        return _judged(own, one, simulated(trace, own, progress), reading_ms, target)

    return _search(fewest, tried, lambda found: found.keeps(target))


def one_serves(trace: Trace, pool: Pool, progress: Progress = lambda _: None) -> float:
    """Requests a second of one server that always has some waiting; infinite where there are too few to tell."""
    if trace.requests < FEW:
        return math.inf
    some = taken(trace, np.arange(min(trace.requests, SATURATING)))
    outcome = simulated(at_once(some), replace(pool, servers=1), progress)
    ends = np.sort(outcome.end_ms[np.isfinite(outcome.end_ms)])
    first, last = len(ends) // 8, 7 * len(ends) // 8  # neither while it fills nor while it drains
    return 1000.0 * (last - first) / float(ends[last] - ends[first])


def simulated(trace: Trace, pool: Pool, progress: Progress) -> Outcome:
    fleet = Fleet(pool.name, (pool,))
    return run(trace, fleet, ByLength(trace, fleet), progress)


def _judged(pool: Pool, one: float, outcome: Outcome, reading_ms: NDArray[np.float64], target: Target) -> Sized:
    """By the requests that met a warm fleet. A refused one is late, and held up."""
    requests = len(outcome.pool)
    counted = np.arange(requests) >= int(WARM_UP * requests)
    late = float(delays.late(outcome, target.ttft_ms)[counted].mean())
    held_up = float(delays.held_up(outcome, target.ttft_ms, reading_ms)[counted].mean())
    return Sized(pool, one, late, held_up, percentile(ttft_ms(outcome, counted), 99))


def _search(fewest: int, tried: Callable[[int], Sized], enough: Callable[[Sized], bool]) -> Sized:
    """Up in growing strides until there are enough, then between the last two."""
    low, high, stride = fewest - 1, fewest, max(1, round(fewest * STRIDE))
    best = tried(high)
    while not enough(best):
        low, high, stride = high, high + stride, 2 * stride
        best = tried(high)
    while high - low > 1:
        middle = (low + high) // 2
        found = tried(middle)
        if enough(found):
            high, best = middle, found
        else:
            low = middle
    return best
