from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from extproc.config import load
from extproc.planning.plan import Plan, Simulated, Trial, candidates, make, steps
from extproc.planning.reasons import reasons, verdict
from extproc.planning.report import configuration
from tests.planning.needs import lengths_of, need, server


@pytest.fixture(scope="module")
def reserved() -> Plan:
    """Servers that set room aside for the longest request of their pool: two pools pay."""
    return make(need(of=server(256, reserves=True)))


@pytest.fixture(scope="module")
def few() -> Plan:
    return make(need(per_second=0.5))


def test_thresholds_leave_requests_on_both_sides() -> None:
    tried = candidates(need())
    lengths = need().lengths
    assert list(tried) == sorted(set(tried))
    assert all(0 < lengths.share_between(0, one) < 1 for one in tried)


def test_two_pools_pay_where_room_is_reserved(reserved: Plan) -> None:
    assert reserved.saving > 0.3
    assert verdict(reserved).startswith("Split at ")
    assert reasons(reserved)[0].startswith("The work alone takes ")
    assert reserved.recommended is reserved.split


def test_the_best_threshold_needs_the_fewest_servers(reserved: Plan) -> None:
    assert reserved.best is not None
    assert reserved.best.fleet.servers == min(one.fleet.servers for one in reserved.splits)


def test_a_third_pool_is_tried(reserved: Plan) -> None:
    assert reserved.three is not None
    assert len(reserved.three.pools) == 3


def test_two_pools_do_not_pay_at_a_low_rate(few: Plan) -> None:
    assert few.homogeneous.servers == 1
    assert verdict(few).startswith("Do not split: two pools need 2 servers")
    assert few.recommended is few.mixed


def test_a_split_that_does_not_pay_says_why(few: Plan) -> None:
    told = " ".join(reasons(few))
    assert "rho is" in told
    assert "Too much is long" in told


def test_the_rate_from_which_it_pays_is_told() -> None:
    wanted = need(per_second=0.5, of=server(256, reserves=True))
    plan = make(wanted, threshold=4096)
    assert plan.saving <= 0
    assert plan.pays_from is not None
    assert make(replace(wanted, requests_per_second=plan.pays_from), threshold=4096).saving > 0
    assert make(replace(wanted, requests_per_second=plan.pays_from / 2), threshold=4096).saving <= 0


def test_without_the_correction_splitting_seems_to_pay_more() -> None:
    plan = make(need(), threshold=4096)
    assert plan.best is not None
    assert plan.best.closed_corrected < 0.02 < plan.best.closed_uncorrected
    assert plan.best.whole(1000, corrected=True).long > plan.best.whole(1000, corrected=False).long


def test_a_threshold_that_is_given_is_kept() -> None:
    plan = make(need(), threshold=3000)
    assert [one.threshold for one in plan.splits] == [3000]


def test_equal_requests_cannot_be_divided() -> None:
    plan = make(need(lengths_of((100, 100), (100, 100))))
    assert plan.best is None
    assert verdict(plan) == "Do not split: no threshold has requests on both sides that could be served in time."
    assert reasons(plan) == ()


def test_the_table_of_sensitivity_moves_every_figure(reserved: Plan) -> None:
    assert [one.change for one in reserved.variants if one.change.startswith("rate")] == ["rate x 0.5", "rate x 2"]
    changes = {one.change.rpartition(" ")[0] for one in reserved.variants}
    assert {"reading speed", "decoding speed", "KV tokens", "longest tenth x"} <= changes
    twice = next(one for one in reserved.variants if one.change == "rate x 2")
    assert twice.homogeneous is not None
    assert twice.homogeneous > 1.9 * reserved.homogeneous.servers


def test_progress_is_as_long_as_announced() -> None:
    reported: list[None] = []
    make(need(), None, lambda: reported.append(None))
    assert len(reported) == steps(need(), None)


def test_what_the_simulator_finds_counts(reserved: Plan) -> None:
    assert reserved.best is not None
    mixed = reserved.homogeneous.servers
    short, long = (pool.servers for pool in reserved.best.fleet.pools)
    trials = Simulated(1000, Trial((mixed,), 0.0, (short + long,)), Trial((short, long), 0.02, (short, long + 2)))
    tried = replace(reserved, simulated=trials)
    assert tried.saving < 0
    assert verdict(tried).startswith("Do not split")
    assert tried.recommended.servers == short + long


@pytest.mark.parametrize("name", ["reserved", "few"], ids=["split", "not split"])
def test_the_configuration_that_is_printed_is_valid(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    plan = request.getfixturevalue(name)
    path = tmp_path / "tokenpool.yaml"
    model = "\n".join(f"    {line}" for line in configuration(plan).splitlines())
    path.write_text(f"models:\n  - name: llama\n{model}\n")
    [found] = load(path).policy.models
    assert [pool.max_model_len for pool in found.pools] == [pool.high for pool in plan.recommended.pools]
    if len(found.pools) > 1:
        assert found.routing.threshold_tokens == plan.best.threshold
