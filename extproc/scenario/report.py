"""What a scenario found: tables, and claims that hold or do not; the same as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from extproc.scenario.outcomes import Ending, Latency, Summary, summary
from extproc.scenario.running import Record

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]  # ">" before those to be aligned to the right
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Check:
    """What the scenario is to show, and what was measured."""

    claim: str
    measured: str
    met: bool


@dataclass(frozen=True, slots=True)
class Report:
    tables: tuple[Table, ...]
    checks: tuple[Check, ...]
    runs: Json  # by name


def tenants_of(record: Record) -> tuple[str, ...]:
    return tuple(tenant.name for tenant in record.plan.terms.tenants)


def latency_table(records: Iterable[Record]) -> Table:
    columns = ("run", "tenant", ">sent", ">refused", ">broken off", ">TTFT P50", ">TTFT P99", ">tokens", ">of finished")
    rows = [(record.plan.name, *latency_row(one)) for record in records for one in summaries(record) if one.sent]
    return Table("Requests (times in scenario seconds)", columns, tuple(rows))


def summaries(record: Record) -> tuple[Summary, ...]:
    return tuple(summary(tenant, record.outcomes) for tenant in tenants_of(record))


def latency_row(one: Summary) -> tuple[str, ...]:
    counts = (one.sent, one.endings[Ending.REFUSED], one.endings[Ending.BROKEN_OFF])
    p50, p99 = (seconds(one.first_token, percent) for percent in (50, 99))
    tokens = (one.tokens, one.tokens_of_finished)
    return (one.tenant, *map(str, counts), p50, p99, *(f"{count:,}" for count in tokens))


def seconds(latency: Latency | None, percent: int) -> str:
    if latency is None:
        return "-"
    value = latency.p50 if percent == 50 else latency.p99  # noqa: PLR2004 - there are two
    return f"{'over ' if latency.at_least else ''}{value:.2f} s"


def as_json(record: Record) -> Json:
    return {
        "seconds": record.plan.seconds,
        "server_tokens": record.server_tokens,
        "sent_late_seconds": max((one.sent_late for one in record.outcomes), default=0.0),
        "tenants": {one.tenant: summary_json(one) for one in summaries(record)},
    }


def summary_json(one: Summary) -> Json:
    return {
        "sent": one.sent,
        "endings": {ending.name.lower(): one.endings[ending] for ending in Ending},
        "reasons": dict(one.reasons),
        "ttft_seconds": latency_json(one.first_token),
        "tokens": one.tokens,
        "tokens_of_finished": one.tokens_of_finished,
    }


def latency_json(one: Latency | None) -> Json | None:
    return None if one is None else {"p50": one.p50, "p99": one.p99, "at_least": one.at_least}


def report_json(report: Report) -> Json:
    checks = [{"claim": one.claim, "measured": one.measured, "met": one.met} for one in report.checks]
    return {"runs": report.runs, "checks": checks}


def checks_table(checks: Iterable[Check]) -> Table:
    rows = tuple((one.claim, one.measured, "yes" if one.met else "NO") for one in checks)
    return Table("What it shows", ("claim", "measured", "holds"), rows)


def late_notes(records: Mapping[str, Record], noticeable: float) -> tuple[str, ...]:
    """Where this machine could not keep up with the load, the figures are its own, not the stack's."""
    worst = {name: max((one.sent_late for one in record.outcomes), default=0.0) for name, record in records.items()}
    return tuple(
        f"{name}: requests went out up to {late:.2f} scenario seconds late; choose a lower --speed"
        for name, late in worst.items()
        if late > noticeable
    )
