from __future__ import annotations

from collections.abc import Iterable

import pytest

from extproc.scenario.outcomes import Ending, Outcome
from extproc.scenario.overload import ALONE, WITH, WITHOUT, broken_promises, plans, report
from extproc.scenario.report import report_json
from extproc.scenario.running import Record
from tests.scenario.records import outcome, record, refused

PLANS = {plan.name: plan for plan in plans(60.0, headroom_requests=0)}
QUICK = [outcome(at=float(at), first_token=0.1) for at in range(10)]
SLOW = [outcome(at=float(at), first_token=30.0, end=31.0) for at in range(10)]


def runs(
    without: Iterable[Outcome] = SLOW, limited: Iterable[Outcome] = QUICK, tokens: int = 1000
) -> dict[str, Record]:
    return {
        ALONE: record(PLANS[ALONE], QUICK, tokens=100),
        WITHOUT: record(PLANS[WITHOUT], without, tokens=1000),
        WITH: record(PLANS[WITH], limited, tokens=tokens),
    }


def test_the_guaranteed_tenant_sends_the_same_in_all_three_runs_and_the_flood_comes_in_two() -> None:
    by_tenant = [{load.tenant: load for load in PLANS[name].loads} for name in (ALONE, WITHOUT, WITH)]
    assert [set(one) for one in by_tenant] == [{"guaranteed"}, {"guaranteed", "spot"}, {"guaranteed", "spot"}]
    assert len({one["guaranteed"] for one in by_tenant}) == 1
    assert [PLANS[name].terms.limited for name in (ALONE, WITHOUT, WITH)] == [True, False, True]


def test_all_claims_hold_where_they_do() -> None:
    assert all(check.met for check in report(runs()).checks)


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        pytest.param(runs(without=QUICK), "grows past", id="no flood"),
        pytest.param(runs(limited=SLOW), "stays below", id="slow"),
        pytest.param(runs(limited=[outcome(first_token=0.12)]), "times what it is", id="a fifth slower"),
        pytest.param(runs(limited=[*QUICK, refused(at=20.0)]), "is refused or ended", id="refused within base"),
        pytest.param(runs(tokens=940), "the server generates", id="idle slots"),
    ],
)
def test_a_claim_that_does_not_hold_is_said_not_to(found: dict[str, Record], claim: str) -> None:
    failed = [check.claim for check in report(found).checks if not check.met]
    assert any(claim in one for one in failed)


def test_a_refusal_above_the_base_breaks_no_promise() -> None:
    """Two slots, both held at 5 s, one at 15 s."""
    held = [outcome(at=0.0, end=10.0), outcome(at=1.0, end=20.0)]
    assert broken_promises([*held, refused(at=5.0)], slots=2) == []
    assert len(broken_promises([*held, refused(at=15.0)], slots=2)) == 1


def test_a_guaranteed_request_that_is_ended_breaks_the_promise_whatever_is_held() -> None:
    ended = outcome(at=5.0, ending=Ending.BROKEN_OFF)
    assert broken_promises([outcome(end=10.0), ended], slots=1) == [ended]


def test_times_that_are_only_lower_bounds_are_told_so() -> None:
    waiting = outcome(first_token=None, end=50.0, ending=Ending.UNFINISHED)
    [table] = report(runs(without=[waiting])).tables
    [row] = [row for row in table.rows if row[0] == WITHOUT]
    assert "over 50.00 s" in row


def test_the_json_has_each_runs_figures_and_what_holds() -> None:
    found = report_json(report(runs()))
    assert found["runs"][WITH]["tenants"]["guaranteed"]["ttft_seconds"] == {"p50": 0.1, "p99": 0.1, "at_least": False}
    assert found["runs"][WITH]["server_tokens"] == 1000
    assert {check["met"] for check in found["checks"]} == {True}
