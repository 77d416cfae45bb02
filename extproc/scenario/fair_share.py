"""Half of the servers fail under elastic tenants: experiment 2 of the token-pools paper (arXiv 2603.00356).

A coding assistant with a tight SLO and a data pipeline with a loose one share what survives; after the recovery an
analytics tenant joins. Loads and durations are our own: no copy of the paper at hand gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from extproc.core.policy import ServiceClass
from extproc.scenario.configuration import Fleet, Tenant, Terms
from extproc.scenario.loads import Load, Pattern
from extproc.scenario.outcomes import Ending, Outcome, longest_gap, share_within
from extproc.scenario.report import Check, Json, Report, Table, as_json
from extproc.scenario.running import Outage, Plan, Record
from extproc.scenario.watching import Sample, TenantSample

SECONDS = 420.0
GRACE_SECONDS = 10.0
FLEET = Fleet(servers=2, slots=8)
COPILOT = Tenant("elastic-copilot", ServiceClass.ELASTIC, 5, burst_slots=8, slo_seconds=0.5, max_wait_seconds=0.35)
SYNTH = Tenant("elastic-synth", ServiceClass.ELASTIC, 5, burst_slots=8, slo_seconds=30.0, max_wait_seconds=25.0)
ANALYTICS = Tenant("elastic-analytics", ServiceClass.ELASTIC, 5, burst_slots=8, slo_seconds=10.0, max_wait_seconds=8.0)
TENANTS = (COPILOT, SYNTH, ANALYTICS)

WITHOUT, WITH = "no admission", "admission"
LEAST_IN_TIME = 0.95
PAID_OFF = 0.05  # of debt
NOTHING_SEEN = TenantSample(in_use=0, share=0.0, cap=0.0, debt=0.0, weight=0.0, waiting=0)
SETTLING = 1 / 3  # of a phase: what is looked at are the other two thirds


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    begins: float
    ends: float

    def holds(self, at: float) -> bool:
        return self.begins <= at < self.ends

    @property
    def settled(self) -> Phase:
        return Phase(self.name, self.begins + (self.ends - self.begins) * SETTLING, self.ends)


def phases(seconds: float) -> tuple[Phase, Phase, Phase, Phase]:
    """Before, outage, recovery, third tenant: a seventh of the time, then two sevenths each."""
    marks = [seconds * part / 7 for part in (0, 1, 3, 5, 7)]
    return (
        Phase("both servers", marks[0], marks[1]),
        Phase("one server", marks[1], marks[2]),
        Phase("both again", marks[2], marks[3]),
        Phase("third tenant", marks[3], marks[4]),
    )


def plans(seconds: float) -> tuple[Plan, ...]:
    _, outage, _, third = phases(seconds)

    def plan(name: str, *, limited: bool) -> Plan:
        terms = Terms(FLEET, TENANTS, headroom_requests=0, limited=limited)
        failure = Outage(1, outage.begins, outage.ends)
        return Plan(name, terms, loads(seconds, third.begins), seconds, GRACE_SECONDS, failure)

    return (plan(WITHOUT, limited=False), plan(WITH, limited=True))


def loads(seconds: float, third_joins: float) -> tuple[Load, ...]:
    """In flight, on average, where nothing makes them wait: 3.6, 4.8 and 4.4 requests."""
    return (
        Load(COPILOT.name, 2.7, 20, 0.0, seconds, Pattern.PACED),
        Load(SYNTH.name, 0.6, 120, 0.0, seconds, Pattern.PACED),
        Load(ANALYTICS.name, 1.1, 60, third_joins, seconds),
    )


def report(records: Mapping[str, Record]) -> Report:
    limited = records[WITH]
    four = phases(limited.plan.seconds)
    return Report(
        tables=tuple(phase_table(record, four) for record in records.values()),
        checks=(*service_checks(limited, four), *debt_checks(limited.samples, four)),
        runs={name: {**as_json(record), "phases": phases_json(record, four)} for name, record in records.items()},
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """One tenant in one phase."""

    sent: int
    refused: int
    in_time: float  # of all sent, refused ones included
    gap: float  # the longest without a first token
    share: float  # slots, on average once the phase has settled
    in_use: float
    debt: float  # at the phase's end


def standing(record: Record, tenant: Tenant, phase: Phase) -> Standing:
    own = [one for one in record.of(tenant.name) if phase.holds(one.request.at)]
    seen = [one.tenants[tenant.name] for one in record.samples if phase.settled.holds(one.at)]
    return Standing(
        sent=len(own),
        refused=sum(1 for one in own if one.ending is Ending.REFUSED),
        in_time=share_within(own, tenant.slo_seconds),
        gap=gap(record.of(tenant.name), phase),
        share=mean([one.share for one in seen]),
        in_use=mean([one.in_use for one in seen]),
        debt=seen[-1].debt if seen else 0.0,
    )


def gap(own: Iterable[Outcome], phase: Phase) -> float:
    return longest_gap(own, phase.begins, phase.ends)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def standings(record: Record, four: Iterable[Phase]) -> dict[tuple[str, str], Standing]:
    """By phase and tenant, of those that asked for something."""
    found = {(phase.name, tenant.name): standing(record, tenant, phase) for phase in four for tenant in TENANTS}
    return {key: one for key, one in found.items() if one.sent}


def phase_table(record: Record, four: Iterable[Phase]) -> Table:
    columns = ("phase", "tenant", ">sent", ">refused", ">TTFT in SLO", ">longest gap", ">in use", ">share", ">debt")
    limited = record.plan.terms.limited
    rows = tuple(
        (*key, str(one.sent), str(one.refused), f"{one.in_time:.1%}", f"{one.gap:.1f} s", f"{one.in_use:.1f}")
        + ((f"{one.share:.1f}", f"{one.debt:+.2f}") if limited else ("-", "-"))
        for key, one in standings(record, four).items()
    )
    return Table(f"Run: {record.plan.name} (slots; times in scenario seconds)", columns, rows)


def phases_json(record: Record, four: Iterable[Phase]) -> Json:
    found: Json = {}
    for (phase, tenant), one in standings(record, four).items():
        found.setdefault(phase, {})[tenant] = {
            "sent": one.sent,
            "refused": one.refused,
            "ttft_in_slo": one.in_time,
            "longest_gap_seconds": one.gap,
            "share": one.share,
            "in_use": one.in_use,
            "debt": one.debt,
        }
    return found


def service_checks(record: Record, four: tuple[Phase, Phase, Phase, Phase]) -> tuple[Check, ...]:
    _, outage, _, third = four
    in_time = share_within(record.of(COPILOT.name), COPILOT.slo_seconds)
    in_outage = standing(record, COPILOT, outage).in_time
    gaps = {tenant.name: gap(record.of(tenant.name), outage) for tenant in (COPILOT, SYNTH)}
    joined = standing(record, ANALYTICS, third)
    return (
        Check(
            f"of all that {COPILOT.name} sent, refused or not, {LEAST_IN_TIME:.0%} began within its SLO",
            f"{in_time:.1%}; {in_outage:.1%} of those during the outage",
            in_time >= LEAST_IN_TIME,
        ),
        Check(
            "nobody starved in the outage: the longest time without a first token",
            ", ".join(f"{name} {found:.1f} s" for name, found in gaps.items()),
            max(gaps.values()) <= SYNTH.slo_seconds,
        ),
        Check(
            f"{ANALYTICS.name} joins and gets what it asks for",
            f"{joined.in_use:.1f} slots in use, {joined.refused} of {joined.sent} refused",
            joined.refused <= joined.sent * (1 - LEAST_IN_TIME),
        ),
    )


def debt_checks(samples: Sequence[Sample], four: tuple[Phase, Phase, Phase, Phase]) -> tuple[Check, ...]:
    before, outage, again, _ = four
    then = at_end(samples, before)
    seen = [one.tenants[SYNTH.name] for one in samples if outage.holds(one.at)]
    debt = max((one.debt for one in seen), default=0.0)
    weight = max((one.weight for one in seen), default=0.0)
    share = mean([one.tenants[SYNTH.name].share for one in samples if outage.settled.holds(one.at)])
    left = FLEET.slots - COPILOT.slots
    paid = paid_off_after(samples, again)
    return (
        Check(
            f"the outage puts {SYNTH.name} into debt, and debt raises its weight",
            f"debt from {then.debt:+.2f} to {debt:+.2f}, weight from {then.weight:.1f} to {weight:.1f}",
            debt > PAID_OFF and weight > then.weight,
        ),
        Check(
            f"so its share stays above the {left} slots that {COPILOT.name}'s base would leave it",
            f"{share:.1f} slots on average",
            share > left,
        ),
        Check(
            f"no debt is above {PAID_OFF:g} any more when the third tenant joins",
            "not in time"
            if paid is None
            else f"{paid:.0f} s after the recovery; at last {debts_at_end(samples, again)}",
            paid is not None,
        ),
    )


def debts_at_end(samples: Sequence[Sample], phase: Phase) -> str:
    last = next((one for one in reversed(samples) if phase.holds(one.at)), None)
    return ", ".join(f"{one.debt:+.2f}" for one in last.tenants.values()) if last else ""


def at_end(samples: Sequence[Sample], phase: Phase) -> TenantSample:
    found = (one.tenants[SYNTH.name] for one in reversed(samples) if phase.holds(one.at))
    return next(found, NOTHING_SEEN)


def paid_off_after(samples: Sequence[Sample], phase: Phase) -> float | None:
    """From how many seconds after its beginning on, until its end, no debt is above PAID_OFF.

    Below 0 is no debt: who had to wait catches up above its base.
    """
    since: float | None = None
    for one in samples:
        if phase.holds(one.at):
            small = all(tenant.debt <= PAID_OFF for tenant in one.tenants.values())
            since = (one.at if since is None else since) if small else None
    return None if since is None else since - phase.begins
