"""The fleets of the two papers on pools by length, simulated: how many servers a target takes, mixed and split.

With the papers' own constants (requests a second of a server, sequences, contexts), with measured times and their
sequences, and with measured times and the same sequences everywhere: what the three knobs that they turn at once do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from extproc.fleet.fleet import Pool
from extproc.fleet.parts import taken
from extproc.fleet.processes import in_processes
from extproc.fleet.simulation import Progress
from extproc.fleet.sizing import Sized, Target, smallest
from extproc.sim.batch import Slots
from extproc.sim.timing import Timing, constant_decode, linear_prefill
from extproc.traces import papers, published
from extproc.traces.papers import PublishedPool
from extproc.traces.trace import Trace

FREE = linear_prefill(1e-9)  # the papers' constants are of whole requests: reading is in the time of a step
CONSTANTS = "papers' constants"
MEASURED = "measured times"
ALIKE = "measured times, all sequences alike"
SET_UPS = (CONSTANTS, MEASURED, ALIKE)


@dataclass(frozen=True, slots=True)
class Server:
    """What is measured, where the papers' constants do not say it."""

    timing: Timing
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class Case:
    trace: str
    set_up: str
    short_share: float  # of requests up to the threshold
    mixed: Sized
    short: Sized
    long: Sized | None  # None: the trace has no such request

    @property
    def split_servers(self) -> int:
        return self.short.servers + (self.long.servers if self.long else 0)

    @property
    def saving(self) -> float:
        """Share of the mixed fleet's servers; negative where splitting costs more."""
        return 1 - self.split_servers / self.mixed.servers

    @property
    def closed_form(self) -> float:
        """Paper A's alpha * (1 - 1 / rho), with the rates of saturated servers as simulated."""
        return self.short_share * (1 - self.mixed.one_serves / self.short.one_serves)


@dataclass(frozen=True, slots=True)
class Traffic:
    requests: int
    requests_per_second: float
    seed: int


def cases(
    traffic: Traffic, server: Server, traces: Sequence[str], processes: int, progress: Progress = lambda _: None
) -> list[Case]:
    """Each trace in each set-up."""
    work = [(trace, set_up, traffic, server) for trace in traces for set_up in SET_UPS]
    return in_processes(one_case, work, processes, progress)


def one_case(name: str, set_up: str, traffic: Traffic, server: Server, progress: Progress) -> Case:
    """Long requests get servers first: what they are late counts against the hundredth that all may be."""
    totals, outputs = published.LIKE[name]
    trace = published.from_quantiles(totals, outputs, traffic.requests, traffic.requests_per_second, traffic.seed)
    is_short = trace.total_tokens <= papers.THRESHOLD_TOKENS
    shorts, longs = (taken(trace, np.flatnonzero(which)) for which in (is_short, ~is_short))
    share = float(is_short.mean())
    target = Target(papers.TTFT_P99_MS)
    mixed = smallest(trace, pool_of("mixed", papers.HOMOGENEOUS, set_up, server, trace), target, progress)
    long = None
    if longs.requests:
        anyhow = replace(target, late=1.0)  # some are not even read by then
        long = smallest(longs, pool_of("long", papers.LONG, set_up, server, longs), anyhow, progress)
        target = replace(target, late=(target.late - (1 - share) * long.late) / share)
    short = smallest(shorts, pool_of("short", papers.SHORT, set_up, server, shorts), target, progress)
    return Case(name, set_up, share, mixed, short, long)


def pool_of(name: str, published_pool: PublishedPool, set_up: str, server: Server, trace: Trace) -> Pool:
    """As the paper configures it; in the last set-up all servers have the short pool's sequences and steps."""
    like = papers.SHORT if set_up == ALIKE else published_pool
    slots = Slots(like.sequences, max(server.kv_tokens, published_pool.max_model_len), like.step_tokens)
    timing = server.timing
    if set_up == CONSTANTS:
        slots = Slots(like.sequences, like.sequences * published_pool.max_model_len, like.step_tokens)
        timing = paced(published_pool, float(trace.output_tokens.mean()))
    return Pool(name, 1, published_pool.max_model_len, slots, timing)


def paced(server: PublishedPool, output_tokens: float) -> Timing:
    """Such that a full batch of answers of that mean length leaves at the published rate; reading is free."""
    steps_per_second = server.requests_per_second * output_tokens / server.sequences
    return Timing(FREE, constant_decode(1000.0 / steps_per_second))
