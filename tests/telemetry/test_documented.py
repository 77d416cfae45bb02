from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from extproc.telemetry import StateCollector, Telemetry
from tests.telemetry.facts import ADMITTED, SETTLED
from tests.telemetry.test_scrape import STATE

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<labels>[^|]*) \|", re.MULTILINE)

Exported = dict[str, tuple[str, frozenset[str]]]


def documented() -> Exported:
    rows = ROW.finditer(PAGE.read_text())
    return {row["name"]: (row["type"], frozenset(re.findall(r"`(\w+)`", row["labels"]))) for row in rows}


def exported() -> Exported:
    registry = CollectorRegistry()
    telemetry = Telemetry(registry)
    telemetry.decided(ADMITTED)
    telemetry.decided(replace(ADMITTED, pool="long"))
    telemetry.settled(SETTLED)
    telemetry.settled(replace(SETTLED, source="expired"))
    telemetry.preempted("llama", "acme", "preemptible")
    telemetry.ledger_call("admit", 1, 0.001)
    registry.register(StateCollector(STATE))
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels if label != "le"),
        )
        for family in registry.collect()
    }


def test_the_page_of_metrics_lists_each_one_with_its_type_and_labels() -> None:
    assert documented() == exported()
