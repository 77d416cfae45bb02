"""A plan's fleets in the simulator: whether they keep the target there, and how many servers it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from extproc.fleet import delays
from extproc.fleet import fleet as simulated
from extproc.fleet.parts import simulate, taken
from extproc.planning.forms import servers_for
from extproc.planning.latency import LATE
from extproc.planning.plan import Plan, Simulated, Trial
from extproc.planning.sizing import Fleet, Need, Pool
from extproc.sim.batch import Slots
from extproc.traces.trace import Trace

MOST_REQUESTS = 200_000
FILLING = 0.1  # of the requests come while the servers fill up; they are not judged
STARTS_AT = 0.8  # of the servers that were planned
STEP = 20  # a pool that must grow does so by this part of itself
MOST_TIMES = 4  # as many servers as planned: then it is given up

Progress = Callable[[], object]


def of_plan(trace: Trace, plan: Plan, progress: Progress = lambda: None) -> Plan:
    """The plan, with what the simulator makes of its two fleets."""
    split = None if plan.best is None else of_fleet(trace, plan.best.fleet, plan.need, progress)
    mixed = of_fleet(trace, plan.homogeneous, plan.need, progress)
    return replace(plan, simulated=Simulated(min(trace.requests, MOST_REQUESTS), mixed, split))


def of_fleet(trace: Trace, fleet: Fleet, need: Need, progress: Progress = lambda: None) -> Trial:
    """The trace's requests at the need's rate; those longer than the fleet takes are left out."""
    shortened = trace.first(MOST_REQUESTS).at_rate(need.requests_per_second)
    pools = [_Tried(shortened, pool, need, progress) for pool in fleet.pools]
    requests = sum(pool.judged for pool in pools)

    def late() -> float:
        return sum(pool.late() for pool in pools) / max(1, requests)

    planned, planned_late = tuple(pool.servers for pool in pools), late()
    for pool in pools:
        pool.start()
    while (growing := _short_of_servers(pools, late() > LATE)) is not None:
        growing.servers += max(1, growing.servers // STEP)
        if growing.servers > MOST_TIMES * growing.pool.servers:
            return Trial(planned, planned_late, None)
    return Trial(planned, planned_late, tuple(pool.servers for pool in pools))


def _short_of_servers(pools: Sequence[_Tried], too_many_late: bool) -> _Tried | None:
    """The pool that must grow next."""
    for pool in pools:
        if pool.held_up() > pool.held_up_allowed:
            return pool
    return max(pools, key=_Tried.late) if too_many_late else None


class _Tried:
    """A pool while its number of servers is searched. Pools are independent: each request has one by its length."""

    def __init__(self, trace: Trace, pool: Pool, need: Need, progress: Progress) -> None:
        self.pool = pool
        self.servers = pool.servers
        self._trace = _between(trace, pool.low, pool.high)
        self._target_ms = need.ttft_p99_ms
        self._fewest = max(1, servers_for(pool.requests_per_second, need.utilisation * pool.one_does))
        self.held_up_allowed = need.held_up
        self._reading_ms = delays.prefill_ms(need.server.timing, self._trace.prompt_tokens.astype(np.float64))
        self._progress = progress
        self._counts = cache(self._count)

    @property
    def judged(self) -> int:
        return self._trace.requests - self._filling

    @property
    def _filling(self) -> int:
        return int(self._trace.requests * FILLING)

    def start(self) -> None:
        self.servers = max(self._fewest, int(self.servers * STARTS_AT))

    def late(self) -> int:
        return self._counts(self.servers)[0]

    def held_up(self) -> float:
        """The share whose first token others delay by more than the target, and than their own reading takes."""
        return self._counts(self.servers)[1] / max(1, self.judged)

    def _count(self, servers: int) -> tuple[int, int]:
        """Requests that were late, and that were held up."""
        if not self._trace.requests:
            return 0, 0
        work = self.pool.work
        slots = Slots(work.allowed_sequences, work.server.kv_tokens, work.server.step_tokens)
        fleet = simulated.Fleet("plan", (simulated.Pool("all", servers, self.pool.high, slots, work.server.timing),))
        outcome = simulate(self._trace, fleet)
        self._progress()
        found = delays.late(outcome, self._target_ms), delays.held_up(outcome, self._target_ms, self._reading_ms)
        late, held_up = (int(np.count_nonzero(flags[self._filling :])) for flags in found)
        return late, held_up


def _between(trace: Trace, low: int, high: int) -> Trace:
    return taken(trace, np.flatnonzero((trace.total_tokens > low) & (trace.total_tokens <= high)))
