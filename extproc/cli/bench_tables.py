"""What `tokenpool bench estimator` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from extproc.bench import accuracy, rules
from extproc.bench.accuracy import THRESHOLDS, Score
from extproc.bench.report import TENANTS, Report, Scored
from extproc.cli import tables

AT = THRESHOLDS.index(8192)  # the default threshold
KIBI = 1024


def show(report: Report) -> None:
    kinds = report.of(rules.LEARNED, next(iter(TENANTS)))
    _kinds(report, kinds)
    _misroutes(kinds)
    _rules(report)
    _drifts(report)
    _poisonings(report)
    _borrowings(report)
    _coverages(report)
    _costs(report)


def _kinds(report: Report, scores: Sequence[Scored]) -> None:
    names = report.size.vocabularies
    title = f"After {accuracy.LEARNED_AFTER} observations: mean error, and P95"
    rows = [
        (kind, *(signed(one.error) for one in found), *(percent(one.p95, 0) for one in found))
        for kind, found in _by_kind(scores)
    ]
    tables.show(title, ("kind", *(f">{name}" for name in names), *(f">P95 {name}" for name in names)), rows)


def _misroutes(scores: Sequence[Scored]) -> None:
    rows = [(kind, *_routes(accuracy.mean(found))) for kind, found in _by_kind(scores)]
    rows.append(("all", *_routes(accuracy.mean([one.score for one in scores]))))
    columns = (*(f">{threshold // KIBI}K" for threshold in THRESHOLDS), ">needless at 8K")
    tables.show("Misroutes by threshold, mean over tokenizers", ("kind", *columns), rows)


def _routes(score: Score) -> Iterable[str]:
    return (*(percent(share, 3) for share in score.misroutes), percent(score.needless[AT]))


def _by_kind(scores: Sequence[Scored]) -> Iterable[tuple[str, list[Score]]]:
    """With a score for each tokenizer."""
    ordered = sorted(scores, key=lambda one: one.kind)
    return [(kind, [one.score for one in found]) for kind, found in groupby(ordered, key=lambda one: one.kind)]


def _rules(report: Report) -> None:
    rows = []
    for tenants in TENANTS:
        for rule in rules.RULES:
            scores = [one.score for one in report.of(rule, tenants)]
            found = accuracy.mean(scores)
            largest = max(abs(one.error) for one in scores)
            errors = (found.error, largest, found.single_error)
            rows.append((tenants, rule, *map(percent, errors), percent(found.p95, 0), *_routes(found)))
    title = "All kinds and tokenizers: |error of the mean|, and misroutes by threshold"
    columns = (
        *("tenants", "rule", ">mean", ">largest", ">one order", ">P95"),
        *(f">{threshold // KIBI}K" for threshold in THRESHOLDS),
        ">needless at 8K",
    )
    tables.show(title, columns, rows)


def _drifts(report: Report) -> None:
    rows = [
        (
            *(one.rule, f"{one.drift.before} to {one.drift.after}"),
            "never" if one.drift.until_close is None else f"{one.drift.until_close:.0f}",
            str(one.drift.never_close),
            *(percent(one.drift.error), percent(one.drift.largest_error), str(one.drift.close_later)),
        )
        for one in report.drifts
    ]
    columns = (
        *("rule", "tokenizers", ">requests until within 1 %", ">kinds never"),
        *(">error 100-200 later", ">largest", ">kinds within 1 %"),
    )
    tables.show("A tokenizer is swapped", columns, rows)


def _poisonings(report: Report) -> None:
    rows = [
        (
            *(one.rule, f"{one.poisoning.bytes_per_token:g}", str(one.poisoning.honest)),
            *(signed(one.poisoning.moved), signed(one.poisoning.moved_others)),
        )
        for one in report.poisonings
    ]
    columns = ("rule", ">bytes per token", ">honest tenants", ">newcomer's estimates", ">of another kind")
    tables.show("One hostile tenant: by how much it moves", columns, rows)


def _borrowings(report: Report) -> None:
    rows = [(one.category, *map(signed, (one.told, one.untold, one.static))) for one in report.borrowings]
    columns = ("category", ">others sent other kinds", ">nobody sent anything", ">4.0 bytes a token")
    tables.show("First estimates of a kind nobody has sent, tiny tokenizer: error of the mean", columns, rows)


def _coverages(report: Report) -> None:
    rows = [
        (one.lengths, percent(one.short_lives), percent(one.long_life), f"{one.answers:,}") for one in report.coverages
    ]
    columns = ("lengths", ">20th to 100th answer", ">one long life", ">answers")
    tables.show("Answers within the learned bound", columns, rows)


def _costs(report: Report) -> None:
    rows = [
        (
            *(one.kind, f"{one.bytes:,}", *(f"{us:,.1f}" for us in (one.estimate, one.msgspec, one.json))),
            *(f"{one.estimate / other:.2f}" for other in (one.msgspec, one.json)),
        )
        for one in report.costs
    ]
    columns = ("text", ">bytes", ">estimate us", ">msgspec us", ">json us", ">of msgspec", ">of json")
    tables.show("Reading a body and estimating, beside decoding the body", columns, rows)


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def signed(share: float) -> str:
    return f"{100 * share:+.2f} %"
