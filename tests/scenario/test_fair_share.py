from __future__ import annotations

from collections.abc import Callable

import pytest

from extproc.scenario.fair_share import (
    ANALYTICS,
    COPILOT,
    SYNTH,
    WITH,
    WITHOUT,
    paid_off_after,
    phases,
    plans,
    report,
    standing,
)
from extproc.scenario.outcomes import Outcome
from extproc.scenario.report import report_json
from extproc.scenario.running import Record
from extproc.scenario.watching import Sample
from tests.scenario.records import outcome, record, refused, sample
from tests.scenario.records import standing as tenant

SECONDS = 70.0  # marks at 10, 30 and 50
BEFORE, OUTAGE, AGAIN, THIRD = phases(SECONDS)
PLANS = {plan.name: plan for plan in plans(SECONDS)}


def debt_of_synth(at: float) -> float:
    """Rises to 0.4 in the outage, is paid off in ten seconds."""
    return 0.02 * max(0.0, at - 10) if at < 30 else max(0.0, 0.4 - 0.04 * (at - 30))


def samples(debt: Callable[[float], float] = debt_of_synth) -> list[Sample]:
    return [
        sample(
            at,
            {
                COPILOT.name: tenant(in_use=4),
                SYNTH.name: tenant(share=3.0 + debt(at), debt=debt(at), weight=2.0 + debt(at), in_use=3),
                ANALYTICS.name: tenant(in_use=4 if at >= 50 else 0),
            },
        )
        for at in map(float, range(70))
    ]


def served() -> list[Outcome]:
    both = [outcome(name.name, at=float(at), first_token=0.2) for name in (COPILOT, SYNTH) for at in range(70)]
    return both + [outcome(ANALYTICS.name, at=float(at), first_token=0.2) for at in range(50, 70)]


def runs(outcomes: list[Outcome] | None = None, seen: list[Sample] | None = None) -> dict[str, Record]:
    kept, looked = served() if outcomes is None else outcomes, samples() if seen is None else seen
    return {name: record(PLANS[name], kept, looked) for name in (WITHOUT, WITH)}


def unmet(found: dict[str, Record]) -> list[str]:
    return [check.claim for check in report(found).checks if not check.met]


def test_the_phases_follow_one_another_and_the_third_tenant_joins_after_the_recovery() -> None:
    assert [(one.begins, one.ends) for one in (BEFORE, OUTAGE, AGAIN, THIRD)] == [(0, 10), (10, 30), (30, 50), (50, 70)]
    for plan in PLANS.values():
        assert plan.outage is not None
        assert (plan.outage.begins, plan.outage.ends) == (10, 30)
        begins = {load.tenant: load.begins for load in plan.loads}
        assert begins == {COPILOT.name: 0, SYNTH.name: 0, ANALYTICS.name: 50}


def test_all_claims_hold_where_they_do() -> None:
    assert unmet(runs()) == []


def test_refused_requests_count_as_late() -> None:
    late = [outcome(COPILOT.name, at=float(at), first_token=0.6) for at in range(4)]
    assert unmet(runs([*served(), *late])) != []
    assert unmet(runs([*served(), *(refused(COPILOT.name, at=float(at)) for at in range(4))])) != []


def test_a_tenant_without_service_in_the_outage_has_starved() -> None:
    kept = [one for one in served() if one.tenant != SYNTH.name or not OUTAGE.holds(one.request.at)]
    longer = {name: record(plan, kept, samples()) for name, plan in PLANS.items()}
    [gap] = [one for one in report(longer).checks if "starved" in one.claim]
    assert f"{SYNTH.name} 20.0 s" in gap.measured


@pytest.mark.parametrize(
    ("debt", "claim"),
    [
        pytest.param(lambda _at: 0.0, "into debt", id="no debt"),
        pytest.param(lambda at: 0.4 if at > 10 else 0.0, "no debt is above", id="never paid off"),
        pytest.param(lambda at: 0.1 if at == 49 else debt_of_synth(at), "no debt is above", id="in debt again"),
        pytest.param(lambda at: -0.1 if at > 20 else debt_of_synth(at), "so its share stays", id="a small share"),
    ],
)
def test_a_claim_about_debt_that_does_not_hold_is_said_not_to(debt: Callable[[float], float], claim: str) -> None:
    assert any(claim in one for one in unmet(runs(seen=samples(debt))))


def test_debt_is_paid_off_from_when_on_nobodys_is_large() -> None:
    assert paid_off_after(samples(), AGAIN) == pytest.approx(9.0)
    assert paid_off_after(samples(lambda at: 0.1 if at == 45 else -0.2), AGAIN) == pytest.approx(16.0)
    assert paid_off_after(samples(lambda _at: 0.1), AGAIN) is None


def test_a_tenants_standing_in_a_phase_is_of_that_phase_alone() -> None:
    found = standing(runs()[WITH], SYNTH, OUTAGE)
    assert (found.sent, found.refused, found.in_time) == (20, 0, 1.0)
    assert found.debt == pytest.approx(debt_of_synth(29))
    assert found.gap == pytest.approx(1.0)
    assert standing(runs()[WITH], ANALYTICS, OUTAGE).sent == 0


def test_shares_and_debts_of_a_run_without_limits_are_not_shown() -> None:
    unlimited, limited = report(runs()).tables
    assert {row[-2:] for row in unlimited.rows} == {("-", "-")}
    assert ("-", "-") not in {row[-2:] for row in limited.rows}


def test_the_json_has_a_standing_for_each_phase_and_tenant() -> None:
    found = report_json(report(runs()))["runs"][WITH]["phases"]
    assert {phase: sorted(tenants) for phase, tenants in found.items()} == {
        "both servers": [COPILOT.name, SYNTH.name],
        "one server": [COPILOT.name, SYNTH.name],
        "both again": [COPILOT.name, SYNTH.name],
        "third tenant": [ANALYTICS.name, COPILOT.name, SYNTH.name],
    }
