from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from extproc.fleet.fleet import Choice, Fleet
from extproc.fleet.parts import merged, parts, simulate, taken
from extproc.fleet.processes import in_processes
from extproc.fleet.routing import ByLength
from extproc.fleet.simulation import Outcome, Progress, run
from extproc.traces.trace import Trace
from tests.fleet.fleets import alone, mixed, split

ARRAYS = [one.name for one in dataclasses.fields(Outcome) if one.name not in ("fleet", "use")]


def assert_equal(found: Outcome, expected: Outcome) -> None:
    for name in ARRAYS:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    for use, expected_use in zip(found.use, expected.use, strict=True):
        assert dataclasses.astuple(use) == pytest.approx(dataclasses.astuple(expected_use))


def whole(trace: Trace, fleet: Fleet) -> Outcome:
    return run(trace, fleet, ByLength(trace, fleet))


@pytest.mark.parametrize(
    "fleet",
    [
        pytest.param(split(), id="pools"),
        pytest.param(split(Choice.TURNS, short=5, long=3), id="servers in turn, as many groups do not divide"),
        pytest.param(dataclasses.replace(alone(4), choice=Choice.TURNS), id="one pool, servers in turn"),
    ],
)
def test_parts_together_are_the_whole(fleet: Fleet) -> None:
    trace = mixed()
    found = parts(fleet, ByLength(trace, fleet).pools, processes=2)
    assert len(found) > 1
    outcomes = [whole(taken(trace, part.requests), part.fleet) for part in found]
    assert_equal(merged(trace, fleet, found, outcomes), whole(trace, fleet))


def test_servers_with_the_fewest_requests_are_one_part() -> None:
    fleet = alone(4)
    assert len(parts(fleet, ByLength(mixed(), fleet).pools, processes=2)) == 1


def test_two_processes_find_what_one_finds() -> None:
    trace, fleet = mixed(20_000, per_second=30), split(Choice.TURNS)
    reported: list[int] = []
    assert_equal(simulate(trace, fleet, 2, reported.append), whole(trace, fleet))
    assert sum(reported) == trace.requests


def halved(number: int, progress: Progress) -> int:
    progress(number)
    return number // 2


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_their_arguments(processes: int) -> None:
    reported: list[int] = []
    assert in_processes(halved, [(8,), (6,), (4,)], processes, reported.append) == [4, 3, 2]
    assert sorted(reported) == [4, 6, 8]
