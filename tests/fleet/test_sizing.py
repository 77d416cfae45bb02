from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from extproc.fleet.fleet import Pool
from extproc.fleet.sizing import Sized, Target, one_serves, simulated, smallest
from extproc.sim.batch import Slots
from extproc.sim.timing import Timing, constant_decode, linear_prefill
from extproc.traces.trace import Trace
from tests.fleet.fleets import PLAIN, mixed, pool

TARGET = Target(ttft_ms=300.0)
SMALL = pool(slots=Slots(4, 4096))


def late(trace: Trace, servers: Pool) -> float:
    """Share of the second half whose first token takes longer than the target."""
    outcome = simulated(trace, servers, lambda _: None)
    return float(((outcome.first_token_ms - outcome.arrival_ms)[trace.requests // 2 :] > TARGET.ttft_ms).mean())


def test_one_server_fewer_would_not_keep_the_target() -> None:
    trace = mixed(4000, per_second=20)
    found = smallest(trace, SMALL, TARGET)
    assert found.servers > 2
    assert late(trace, found.pool) <= TARGET.late < late(trace, replace(found.pool, servers=found.servers - 1))


def test_a_server_serves_its_places_over_the_time_each_is_taken() -> None:
    free = Timing(linear_prefill(1e-9), constant_decode(10.0))
    trace = replace(mixed(4000), output_tokens=np.full(4000, 50))
    assert one_serves(trace, pool(slots=Slots(4, 16_384), timing=free)) == pytest.approx(4 / 0.5, rel=0.01)


def test_never_fewer_than_could_serve_the_requests_for_ever() -> None:
    """A run of two seconds would not show that a queue grows."""
    trace = mixed(60, per_second=30)
    found = smallest(trace, SMALL, Target(ttft_ms=60_000.0))
    assert found.servers >= trace.requests_per_second / found.one_serves


def test_what_others_hold_up_is_bounded_though_the_prompt_itself_is_late() -> None:
    trace = replace(mixed(1000, per_second=3), prompt_tokens=np.full(1000, 3900))  # 390 ms to read
    late_anyhow = replace(TARGET, late=1.0)
    bounded, unbounded = (smallest(trace, SMALL, replace(late_anyhow, held_up=share)) for share in (0.05, 1.0))
    assert bounded.held_up <= 0.05 < unbounded.held_up
    assert bounded.servers > unbounded.servers


def test_one_request_takes_one_server() -> None:
    found = smallest(mixed(1), SMALL, TARGET)
    assert (found.servers, found.one_serves) == (1, float("inf"))


def test_a_target_is_kept_by_both_its_shares() -> None:
    sized = Sized(pool(timing=PLAIN), 1.0, late=0.01, held_up=0.04, ttft_p99_ms=1.0)
    assert sized.keeps(Target(1.0))
    assert not sized.keeps(Target(1.0, late=0.001))
    assert not sized.keeps(Target(1.0, held_up=0.01))
