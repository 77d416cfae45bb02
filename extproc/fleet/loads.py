"""Fleets beside one another at several loads, each run in a process of its own; and how a fleet is best divided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from extproc.fleet.fleet import Fleet, Pool
from extproc.fleet.processes import in_processes
from extproc.fleet.routing import ByLength
from extproc.fleet.simulation import Progress, run
from extproc.fleet.summary import Figures, overall
from extproc.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Row:
    fleet: Fleet
    load: float  # of what the first fleet can serve
    requests_per_second: float
    figures: Figures


@dataclass(frozen=True, slots=True)
class Comparison:
    source: str  # of the trace
    capacity_per_second: float  # of the first fleet
    rows: tuple[Row, ...]  # by load, then fleet


def capacity(trace: Trace, fleet: Fleet, progress: Progress = lambda _: None) -> float:
    """Requests a second that it serves where all come at once."""
    return overall_figures(at_once(trace), fleet, progress).served_per_second


def compare(
    trace: Trace, fleets: Sequence[Fleet], loads: Sequence[float], processes: int, progress: Progress = lambda _: None
) -> Comparison:
    """Each fleet at each load. A load is a share of what the first fleet serves at most."""
    most = capacity(trace, fleets[0], progress)
    places = [(fleet, load) for load in loads for fleet in fleets]
    work = [(trace.at_rate(load * most), fleet) for fleet, load in places]
    found = in_processes(overall_figures, work, processes, progress)
    rows = (Row(fleet, load, load * most, one) for (fleet, load), one in zip(places, found, strict=True))
    return Comparison(trace.source, most, tuple(rows))


def at_once(trace: Trace) -> Trace:
    """Its requests in their order, none after another: what a fleet makes of it is all it can serve."""
    return replace(trace, arrival_s=np.zeros(trace.requests))


def overall_figures(trace: Trace, fleet: Fleet, progress: Progress) -> Figures:
    return overall(run(trace, fleet, ByLength(trace, fleet), progress))


def divided(trace: Trace, fleet: Fleet, processes: int, progress: Progress = lambda _: None) -> Fleet:
    """Two pools with as many servers together, divided so that 99 % have their first token the soonest."""
    choices = list(divisions(fleet))
    found = in_processes(overall_figures, [(trace, one) for one in choices], processes, progress)
    best = min(range(len(choices)), key=lambda index: found[index].ttft_p99_ms)
    return choices[best]


def divisions(fleet: Fleet) -> Iterable[Fleet]:
    short, long = fleet.pools
    for servers in range(1, fleet.servers):
        pools: tuple[Pool, ...] = (replace(short, servers=servers), replace(long, servers=fleet.servers - servers))
        yield replace(fleet, pools=pools)
