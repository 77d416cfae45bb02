from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from extproc.telemetry import MetricsDirectory, StateCollector

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from extproc.telemetry import Telemetry
from tests.telemetry.facts import ADMITTED
telemetry = Telemetry()
for _ in range(int(sys.argv[1])):
    telemetry.decided(ADMITTED)
print("counted", flush=True)
sys.stdin.read()
"""
ADMITTED_LABELS = {
    "model": "llama",
    "entitlement": "acme",
    "class": "guaranteed",
    "pool": "short",
    "verdict": "admit",
    "reason": "",
}
STATE: dict[str, Any] = {
    "models": {
        "llama": {
            "pools": {
                "short": {
                    "capacity": {"tokens_per_second": 2400, "kv_tokens": 262144, "concurrency": 64},
                    "in_use": {"tokens_per_second": 20, "kv_tokens": 800, "concurrency": 2},
                    "servers": 1,
                    "desired": 3,
                }
            },
            "entitlements": {
                "acme": {
                    "share": {"tokens_per_second": 800, "kv_tokens": 60000, "concurrency": 16},
                    "in_use": {"tokens_per_second": 10, "kv_tokens": 400, "concurrency": 1},
                    "cap": {"tokens_per_second": 900, "kv_tokens": 70000, "concurrency": 18},
                    "debt": 0.25,
                    "weight": 6.5,
                    "waiting": 4,
                }
            },
            "leases": 2,
            "bytes_per_token": {"prose": 4.4},
        }
    },
    "degraded": False,
}


class Worker:
    """A worker process that counted some admitted requests and then lives on until it is told to end."""

    def __init__(self, directory: MetricsDirectory, admitted: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(admitted)],
            cwd=ROOT,
            env={**os.environ, **directory.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def counted(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"counted\n"

    def end(self) -> int:
        self.process.communicate(timeout=30)
        return self.process.pid


def seen(directory: MetricsDirectory, name: str, labels: dict[str, str]) -> float | None:
    return directory.registry(None).get_sample_value(name, labels)


def test_a_scrape_adds_up_workers_alive_and_dead(tmp_path: Path) -> None:
    directory = MetricsDirectory(tmp_path)
    first, second = Worker(directory, 2), Worker(directory, 3)
    first.counted()
    second.counted()
    try:
        assert seen(directory, "tokenpool_verdicts_total", ADMITTED_LABELS) == 5
        assert seen(directory, "tokenpool_verdict_seconds_count", {"model": "llama", "verdict": "admit"}) == 5
    finally:
        first_pid, second_pid = first.end(), second.end()
    directory.retire(first_pid)
    assert seen(directory, "tokenpool_verdicts_total", ADMITTED_LABELS) == 5
    directory.retire(second_pid)
    assert seen(directory, "tokenpool_verdicts_total", ADMITTED_LABELS) == 5
    half_millisecond = {"model": "llama", "verdict": "admit", "le": "0.0005"}
    assert seen(directory, "tokenpool_verdict_seconds_bucket", half_millisecond) == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["counter_retired.db", "histogram_retired.db"]


def test_a_worker_that_is_just_starting_does_not_break_a_scrape(tmp_path: Path) -> None:
    directory = MetricsDirectory(tmp_path)
    (tmp_path / "counter_1.db").touch()
    assert seen(directory, "tokenpool_degraded", {}) == 1


def test_a_worker_that_never_counted_can_be_retired(tmp_path: Path) -> None:
    directory = MetricsDirectory(tmp_path)
    (tmp_path / "counter_1.db").touch()
    directory.retire(1)
    directory.retire(2)
    assert not list(tmp_path.iterdir())


def test_counts_of_an_earlier_supervisor_are_removed(tmp_path: Path) -> None:
    (tmp_path / "counter_1.db").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("not ours")
    MetricsDirectory(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("tokenpool_in_use", {"model": "llama", "pool": "short", "unit": "kv_tokens"}, 800),
        ("tokenpool_capacity", {"model": "llama", "pool": "short", "unit": "tokens_per_second"}, 2400),
        ("tokenpool_entitlement_in_use", {"model": "llama", "entitlement": "acme", "unit": "concurrency"}, 1),
        ("tokenpool_share", {"model": "llama", "entitlement": "acme", "unit": "kv_tokens"}, 60000),
        ("tokenpool_debt", {"model": "llama", "entitlement": "acme"}, 0.25),
        ("tokenpool_cap", {"model": "llama", "entitlement": "acme", "unit": "concurrency"}, 18),
        ("tokenpool_weight", {"model": "llama", "entitlement": "acme"}, 6.5),
        ("tokenpool_waiting", {"model": "llama", "entitlement": "acme"}, 4),
        ("tokenpool_servers", {"model": "llama", "pool": "short"}, 1),
        ("tokenpool_desired_replicas", {"model": "llama", "pool": "short"}, 3),
        ("tokenpool_leases", {"model": "llama"}, 2),
        ("tokenpool_bytes_per_token", {"model": "llama", "category": "prose"}, 4.4),
        ("tokenpool_degraded", {}, 0),
    ],
)
def test_the_state_document_becomes_gauges(name: str, labels: dict[str, str], value: float) -> None:
    registry = CollectorRegistry()
    registry.register(StateCollector(STATE))
    assert registry.get_sample_value(name, labels) == value


def test_what_no_tick_has_set_yet_is_no_gauge() -> None:
    llama = STATE["models"]["llama"]
    untouched = {"models": {"llama": {**llama, "pools": {"short": {**llama["pools"]["short"], "desired": None}}}}}
    registry = CollectorRegistry()
    registry.register(StateCollector({**untouched, "degraded": False}))
    assert registry.get_sample_value("tokenpool_desired_replicas", {"model": "llama", "pool": "short"}) is None
    assert registry.get_sample_value("tokenpool_servers", {"model": "llama", "pool": "short"}) == 1


@pytest.mark.parametrize("state", [None, {**STATE, "degraded": True}], ids=["no state", "degraded state"])
def test_being_degraded_shows(state: dict[str, Any] | None) -> None:
    registry = CollectorRegistry()
    registry.register(StateCollector(state))
    assert registry.get_sample_value("tokenpool_degraded") == 1
