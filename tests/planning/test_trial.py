from __future__ import annotations

import pytest

from extproc.planning import trial
from extproc.planning.lengths import of_trace
from extproc.planning.plan import Plan, make
from tests.planning.needs import like, need

THRESHOLD = 6000


@pytest.fixture(scope="module")
def tried() -> Plan:
    return trial.of_plan(like("azure", 8000), make(need(of_trace(like("azure")), per_second=20.0), THRESHOLD))


def test_both_fleets_are_tried(tried: Plan) -> None:
    assert tried.simulated is not None
    assert tried.simulated.split is not None
    assert tried.simulated.requests == 8000
    assert tried.simulated.mixed.planned == (tried.homogeneous.servers,)
    assert tried.best is not None
    assert tried.simulated.split.planned == tuple(pool.servers for pool in tried.best.fleet.pools)


def test_the_servers_that_are_found_keep_the_target(tried: Plan) -> None:
    assert tried.simulated is not None
    again = trial.of_fleet(like("azure", 8000), tried.mixed, tried.need)
    assert again.planned == tried.simulated.mixed.kept
    assert again.planned_late <= 0.01


def test_the_formulas_are_not_far_from_the_simulator(tried: Plan) -> None:
    assert tried.mixed.servers == pytest.approx(tried.homogeneous.servers, rel=0.25)


def test_a_target_that_the_simulator_never_keeps_is_given_up() -> None:
    wanted = need(of_trace(like("azure")), per_second=20.0)
    fleet = make(wanted, THRESHOLD).homogeneous
    strict = need(of_trace(like("azure")), per_second=20.0, ttft_p99_ms=300.0)
    found = trial.of_fleet(like("azure", 3000), fleet, strict)
    assert found.kept is None
    assert found.planned_late > 0.01
