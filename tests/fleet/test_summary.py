from __future__ import annotations

import math

import pytest

from extproc.fleet.routing import ByLength
from extproc.fleet.simulation import run
from extproc.fleet.summary import figures
from extproc.sim.batch import Slots
from tests.fleet.fleets import alone, split, trace_of


def test_figures_of_a_run_that_can_be_added_up_by_hand() -> None:
    """100 ms of prefill for 1,000 tokens, then nine steps of 10 ms; and again half a second later."""
    trace, fleet = trace_of((0, 1000, 10), (0.5, 1000, 10)), alone(slots=Slots(2, 4096))
    [row] = figures(run(trace, fleet, ByLength(trace, fleet)))
    assert (row.requests, row.servers, row.refused) == (2, 1, 0)
    assert row.served_per_second == pytest.approx(2 / 0.69)
    assert (row.ttft_p50_ms, row.ttft_p99_ms) == pytest.approx((100, 100))
    assert (row.tpot_p50_ms, row.tpot_p99_ms) == pytest.approx((10, 10))
    assert row.slots_used == pytest.approx(0.38 / 0.69 / 2)
    held = 100 * 1001 + sum(10 * (1001 + step) for step in range(1, 10))
    assert row.kv_used == pytest.approx(2 * held / 690 / 4096)


def test_pools_add_up_to_all() -> None:
    trace, fleet = trace_of((0, 10, 5), (0, 2000, 5), (0, 5000, 5)), split()
    short, long, everything = figures(run(trace, fleet, ByLength(trace, fleet)))
    assert (short.requests, long.requests, everything.requests) == (1, 1, 3)
    assert (short.refused, long.refused, everything.refused) == (0, 0, 1)
    assert short.served_per_second + long.served_per_second == pytest.approx(everything.served_per_second)


def test_a_pool_without_requests_has_no_latency() -> None:
    trace, fleet = trace_of((0, 10, 5)), split()
    _, long, _ = figures(run(trace, fleet, ByLength(trace, fleet)))
    assert math.isnan(long.ttft_p99_ms)
    assert (long.requests, long.slots_used) == (0, 0)


def test_preemptions_are_counted() -> None:
    trace, fleet = trace_of(*[(0.0, 1000, 1100)] * 4), alone(slots=Slots(4, 4100))
    outcome = run(trace, fleet, ByLength(trace, fleet))
    [row] = figures(outcome)
    assert row.preemptions_per_1000 == 250 * outcome.preemptions.sum() > 0
