"""A flood of spot requests beside a guaranteed tenant: experiment 1 of the token-pools paper (arXiv 2603.00356)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from extproc.core.policy import ServiceClass
from extproc.scenario.configuration import Fleet, Tenant, Terms
from extproc.scenario.loads import Load
from extproc.scenario.outcomes import Ending, Latency, Outcome, latency
from extproc.scenario.report import Check, Report, as_json, latency_table
from extproc.scenario.running import Plan, Record

SECONDS = 300.0
GRACE_SECONDS = 10.0
FLEET = Fleet(servers=1, slots=16)
GUARANTEED = Tenant("guaranteed", ServiceClass.GUARANTEED, slots=8)
SPOT = Tenant("spot", ServiceClass.SPOT, slots=16, max_wait_seconds=1.0)
# Two of its eight slots on average: 2.7 s each at 15 tokens a second. Poisson arrivals need a ninth once in a thousand.
GUARANTEED_PER_SECOND, GUARANTEED_TOKENS = 0.75, 40
SPOT_PER_SECOND, SPOT_TOKENS = 9.6, 100  # four times what the whole server can do

ALONE, WITHOUT, WITH = "guaranteed alone", "flood, no admission", "flood, admission"
PAPER_WITHOUT_SECONDS, PAPER_WITH_SECONDS = 19.0, 1.2
MOST_SLOWER = 1.1
LEAST_THROUGHPUT = 0.95
SETTLED_SECONDS = 0.5  # from a request's end until its slot is surely free again: Envoy's log entry has to arrive


def plans(seconds: float, headroom_requests: int) -> tuple[Plan, ...]:
    """The flood alone tells nothing: what is compared is the guaranteed tenant with itself."""

    def plan(name: str, *, flood: bool = True, limited: bool = True) -> Plan:
        terms = Terms(FLEET, (GUARANTEED, SPOT), headroom_requests, limited)
        return Plan(name, terms, loads(seconds, flood=flood), seconds, GRACE_SECONDS)

    return (plan(ALONE, flood=False), plan(WITHOUT, limited=False), plan(WITH))


def loads(seconds: float, *, flood: bool) -> tuple[Load, ...]:
    guaranteed = Load(GUARANTEED.name, GUARANTEED_PER_SECOND, GUARANTEED_TOKENS, 0.0, seconds)
    spot = Load(SPOT.name, SPOT_PER_SECOND, SPOT_TOKENS, 0.0, seconds)
    return (guaranteed, spot) if flood else (guaranteed,)


def report(records: Mapping[str, Record]) -> Report:
    return Report(
        tables=(latency_table(records.values()),),
        checks=(*latency_checks(records), promise_check(records[WITH]), throughput_check(records)),
        runs={name: as_json(record) for name, record in records.items()},
    )


def latency_checks(records: Mapping[str, Record]) -> tuple[Check, ...]:
    alone, without, limited = (first_token(records[name]) for name in (ALONE, WITHOUT, WITH))
    ratio = limited.p99 / alone.p99 if alone.p99 else 1.0
    return (
        Check(
            f"without admission the guaranteed tenant's P99 TTFT grows past {PAPER_WITHOUT_SECONDS:g} s",
            f"{'over ' if without.at_least else ''}{without.p99:.1f} s",
            without.p99 > PAPER_WITHOUT_SECONDS,
        ),
        Check(
            f"with admission it stays below {PAPER_WITH_SECONDS:g} s",
            f"{limited.p99:.3f} s",
            limited.p99 < PAPER_WITH_SECONDS,
        ),
        Check(
            f"and within {MOST_SLOWER:g} times what it is without a flood",
            f"{ratio:.2f} times {alone.p99:.3f} s",
            ratio <= MOST_SLOWER,
        ),
    )


def first_token(record: Record) -> Latency:
    return latency(record.of(GUARANTEED.name)) or Latency(0.0, 0.0, at_least=True)


def promise_check(limited: Record) -> Check:
    own = limited.of(GUARANTEED.name)
    return Check(
        "no guaranteed request within its base is refused or ended",
        f"{len(broken_promises(own, GUARANTEED.slots))} of {len(own)}",
        not broken_promises(own, GUARANTEED.slots),
    )


def broken_promises(own: Sequence[Outcome], slots: int) -> list[Outcome]:
    """Requests that were not served though their tenant held fewer than its slots."""
    served = [one for one in own if one.ending is not Ending.REFUSED]

    def held(at: float) -> int:
        return sum(1 for one in served if one.request.at < at < one.request.at + one.end + SETTLED_SECONDS)

    unserved = [one for one in own if one.ending in (Ending.REFUSED, Ending.BROKEN_OFF, Ending.FAILED)]
    return [one for one in unserved if one.ending is not Ending.REFUSED or held(one.request.at) < slots]


def throughput_check(records: Mapping[str, Record]) -> Check:
    limited, without = records[WITH].server_tokens, records[WITHOUT].server_tokens
    share = limited / without if without else 1.0
    return Check(
        f"the server generates at least {LEAST_THROUGHPUT:.0%} of what it does without admission",
        f"{share:.1%} of {without:,} tokens",
        share >= LEAST_THROUGHPUT,
    )
