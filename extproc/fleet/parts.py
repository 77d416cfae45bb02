"""Parts of a fleet that know nothing of one another, each in a process of its own.

Where requests go by their true length and none spills, pools are independent; where servers take turns, so are they.
The outcome is the same in one process and in several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from extproc.fleet.fleet import Choice, Fleet
from extproc.fleet.processes import in_processes
from extproc.fleet.routing import ByLength
from extproc.fleet.simulation import NOWHERE, Outcome, Progress, run
from extproc.sim.batch import NEVER, Use
from extproc.traces.trace import Trace

WORTH_A_PROCESS = 20_000  # requests; starting one takes half a second


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    pool: int
    fleet: Fleet  # some servers of that pool, nothing else
    requests: NDArray[np.int64]  # numbers


def simulate(trace: Trace, fleet: Fleet, processes: int = 1, progress: Progress = lambda _: None) -> Outcome:
    """Routes by true length; in as many processes as are worth it."""
    router = ByLength(trace, fleet)
    if fleet.spill or processes < 2 or trace.requests < WORTH_A_PROCESS:  # noqa: PLR2004 - two are several
        return run(trace, fleet, router, progress)
    found = parts(fleet, router.pools, processes)
    if len(found) == 1:
        return run(trace, fleet, router, progress)
    work = [(taken(trace, part.requests), part.fleet) for part in found]
    return merged(trace, fleet, found, in_processes(_run_part, work, processes, progress))


def parts(fleet: Fleet, pools: NDArray[np.int64], processes: int) -> list[Part]:
    """`pools`: each request's."""
    found: list[Part] = []
    for number, pool in enumerate(fleet.pools):
        requests = np.flatnonzero(pools == number)
        groups = min(processes, pool.servers) if fleet.choice is Choice.TURNS else 1
        turn = np.arange(len(requests)) % pool.servers % groups
        for group in range(groups):
            own = replace(pool, servers=len(range(group, pool.servers, groups)))
            found.append(Part(number, replace(fleet, pools=(own,)), requests[turn == group]))
    return [part for part in found if len(part.requests)]


def merged(trace: Trace, fleet: Fleet, found: Sequence[Part], outcomes: Sequence[Outcome]) -> Outcome:
    n = trace.requests
    whole = Outcome(
        fleet=fleet,
        arrival_ms=trace.arrival_s * 1000.0,
        first_token_ms=np.full(n, NEVER),
        end_ms=np.full(n, NEVER),
        pool=np.full(n, NOWHERE, np.int64),
        generated=np.zeros(n, np.int64),
        preemptions=np.zeros(n, np.int64),
        misrouted=np.zeros(n, np.bool_),
        truncated=np.zeros(n, np.bool_),
        spilled=np.zeros(n, np.bool_),
        use=tuple(Use() for _ in fleet.pools),
    )
    for part, outcome in zip(found, outcomes, strict=True):
        whole.first_token_ms[part.requests] = outcome.first_token_ms
        whole.end_ms[part.requests] = outcome.end_ms
        whole.pool[part.requests] = part.pool
        whole.generated[part.requests] = outcome.generated
        whole.preemptions[part.requests] = outcome.preemptions
        whole.use[part.pool].add(outcome.use[0])
    return whole


def _run_part(trace: Trace, fleet: Fleet, progress: Progress) -> Outcome:
    return run(trace, fleet, ByLength(trace, fleet), progress)


def taken(trace: Trace, requests: NDArray[np.int64]) -> Trace:
    """Those requests alone, at their own times."""
    return replace(
        trace,
        arrival_s=trace.arrival_s[requests],
        prompt_tokens=trace.prompt_tokens[requests],
        output_tokens=trace.output_tokens[requests],
        client=trace.client[requests],
    )
