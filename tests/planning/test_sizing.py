from __future__ import annotations

import math

import numpy as np
import pytest

from extproc.fleet import fleet as simulated
from extproc.fleet.parts import simulate
from extproc.planning.latency import LATE, Latency
from extproc.planning.lengths import of_trace
from extproc.planning.server import Work
from extproc.planning.sizing import Infeasible, Sizer
from extproc.sim.batch import Slots
from tests.planning.needs import LONGEST, lengths_of, like, need, server


@pytest.mark.parametrize(("servers", "busy"), [(1, 0.5), (4, 0.7), (16, 0.6)])
@pytest.mark.parametrize("name", ["azure", "lmsys"])
def test_the_p99_is_near_the_simulators(name: str, servers: int, busy: float) -> None:
    trace = like(name, 8000)
    latency = Latency(Work(server(), LONGEST, of_trace(like(name))))
    rate = busy * servers * latency.most_per_second
    slots = Slots(64, server().kv_tokens)
    outcome = simulate(
        trace.at_rate(rate), simulated.Fleet("one", (simulated.Pool("one", servers, LONGEST, slots, server().timing),))
    )
    found = np.quantile(outcome.first_token_ms - outcome.arrival_ms, 0.99)
    assert abs(math.log(latency.at(rate, servers).ttft_p99_ms / found)) < math.log(1.4)


def test_more_servers_are_never_later() -> None:
    latency = Latency(Work(server(), LONGEST, of_trace(like("azure"))))
    late = [latency.at(20, servers).late(2000) for servers in range(9, 60)]
    assert late == sorted(late, reverse=True)


def test_saturated_servers_have_no_latency() -> None:
    latency = Latency(Work(server(), LONGEST, of_trace(like("azure"))))
    with pytest.raises(ValueError, match="saturated"):
        latency.at(latency.most_per_second * 2, 2)


def test_no_server_is_spared() -> None:
    [pool] = Sizer(need()).homogeneous.pools
    assert pool.load.late(2000) <= LATE
    assert pool.latency.at(pool.requests_per_second, pool.servers - 1).late(2000) > LATE


def test_servers_are_not_busier_than_allowed() -> None:
    for pool in Sizer(need(ttft_p99_ms=60_000)).fleet((4096,)).pools:
        assert pool.load.utilisation <= 0.85


def test_two_pools_keep_the_target_together() -> None:
    pools = Sizer(need()).fleet((4096,)).pools
    assert sum(pool.share * pool.load.late(2000) for pool in pools) <= LATE
    assert [pool.high for pool in pools] == [4096, LONGEST]


def test_few_long_requests_are_not_left_to_wait_for_ever() -> None:
    lengths = of_trace(like("lmsys"))
    strict, lax = (Sizer(need(lengths, held_up=share)).fleet((8192,)).pools[-1] for share in (0.02, 1.0))
    assert strict.load.held_up(2000) <= 0.02 < lax.load.held_up(2000)
    assert strict.servers > lax.servers


def test_a_pool_that_nobody_would_use_is_left_out() -> None:
    assert len(Sizer(need(lengths_of((100, 100)))).fleet((1024,)).pools) == 1


def test_a_target_that_reading_alone_misses_is_out_of_reach() -> None:
    with pytest.raises(Infeasible, match="take longer even alone on a server, only to read their prompts"):
        Sizer(need(lengths_of((30_000, 10)))).homogeneous  # noqa: B018 - it is worked out here


def test_a_target_that_others_tokens_miss_is_out_of_reach() -> None:
    with pytest.raises(Infeasible, match="others' tokens"):
        Sizer(need(lengths_of((1000, 500)), ttft_p99_ms=152.0)).homogeneous  # noqa: B018 - it is worked out here
