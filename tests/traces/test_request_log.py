"""The sidecar's request log on real files: written by threads and processes, moved away, on a disk that is full."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import resource
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from extproc.request_log import MOST_WAITING, Line, RequestLog, append, logged
from extproc.telemetry import Telemetry
from extproc.traces.reading import read
from tests.telemetry.facts import ADMITTED, SETTLED, STARTED_NS


class Losses:
    def __init__(self) -> None:
        self.lines: list[int] = []

    def __call__(self, lines: int) -> None:
        self.lines.append(lines)


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_when_a_request_came_how_long_it_was_and_whose(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    log = RequestLog(path, Losses())
    log.add(SETTLED)
    log.flush()
    assert lines_of(path) == [
        {
            "time": STARTED_NS / 1e9 - 2.5,
            "model": "llama",
            "entitlement": "acme",
            "pool": "short",
            "category": "prose",
            "status": 200,
            "source": "usage",
            "prompt_tokens": 200,
            "completion_tokens": 300,
            "prompt_estimate": 250,
            "reserved_tokens": 400,
            "ttft_ms": 300.0,
            "duration_ms": 2500.0,
            "misrouted": False,
            "truncated": False,
        }
    ]


def test_what_is_logged_is_read_back_as_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    with logged(Telemetry(), path, Losses()) as observer:
        for fact in (
            SETTLED,
            replace(SETTLED, at_ns=STARTED_NS + 10**9, prompt_tokens=7, entitlement="bolt", ttft_seconds=None),
            replace(SETTLED, source="expired"),
        ):
            observer.settled(fact)
    trace = read([path])
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == ([200, 7], [300, 300])
    assert trace.arrival_s.tolist() == pytest.approx([0, 1], abs=1e-5)
    assert (trace.clients, trace.left_out) == (("acme", "bolt"), 1)


def test_every_fact_is_passed_on(tmp_path: Path) -> None:
    seen = Seen()
    with logged(seen, tmp_path / "requests.jsonl", Losses()) as observer:
        observer.decided(ADMITTED)
        observer.settled(SETTLED)
        observer.preempted("m", "e", "spot")
        observer.ledger_call("admit", 2, 0.1)
        observer.ledger_failed("admit")
    assert seen.facts == [ADMITTED, SETTLED, ("m", "e", "spot"), ("admit", 2, 0.1), "admit"]


class Seen:
    def __init__(self) -> None:
        self.facts: list[object] = []
        self.decided = self.settled = self.ledger_failed = self.facts.append

    def preempted(self, *fact: object) -> None:
        self.facts.append(fact)

    def ledger_call(self, *fact: object) -> None:
        self.facts.append(fact)


def test_without_a_file_the_observer_is_the_same(tmp_path: Path) -> None:
    telemetry = Telemetry()
    with logged(telemetry, None, Losses()) as observer:
        assert observer is telemetry
    assert list(tmp_path.iterdir()) == []


def test_lines_that_were_there_stay(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    for _ in range(2):
        with logged(Telemetry(), path, Losses()) as observer:
            observer.settled(SETTLED)
    assert len(lines_of(path)) == 2


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "requests.jsonl", tmp_path / "requests.jsonl.1"
    log = RequestLog(path, Losses())
    log.add(SETTLED)
    log.flush()
    path.rename(moved)
    log.add(replace(SETTLED, status=400))
    log.flush()
    assert [line["status"] for line in (*lines_of(moved), *lines_of(path))] == [200, 400]


def test_a_flush_with_nothing_to_write_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    RequestLog(path, Losses()).flush()
    assert not path.exists()


def test_a_file_that_cannot_be_written_is_said_once_and_its_lines_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, losses = tmp_path / "missing", Losses()
    log = RequestLog(folder / "requests.jsonl", losses)
    for lines in (1, 3):
        for _ in range(lines):
            log.add(SETTLED)
        log.flush()
    assert (losses.lines, len(caplog.records)) == ([1, 3], 1)
    assert "No such file" in caplog.text
    folder.mkdir()
    log.add(SETTLED)
    log.flush()
    assert len(lines_of(folder / "requests.jsonl")) == 1
    assert "is written again" in caplog.text


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file grows beyond this: a write stops short of it, and the next one fails, as on a disk without room."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_no_torn_line(tmp_path: Path) -> None:
    path, losses = tmp_path / "requests.jsonl", Losses()
    log = RequestLog(path, losses)
    log.add(SETTLED)
    log.flush()
    with full_disk(path.stat().st_size + 10):
        log.add(SETTLED)
        log.flush()
    log.add(SETTLED)
    log.flush()
    assert (len(lines_of(path)), losses.lines) == (2, [1])


def test_a_disk_that_does_not_keep_up_costs_lines_and_no_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    losses = Losses()
    log = RequestLog(tmp_path / "requests.jsonl", losses)
    for _ in range(MOST_WAITING + 2):
        log.add(SETTLED)
    assert losses.lines == [1, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


APPENDS, LONG = 200, 5000


def _append_often(path: Path, start: Barrier, who: str) -> None:
    start.wait()
    for _ in range(APPENDS):
        append(path, f"{who * LONG}\n{who}\n".encode())


def test_workers_may_write_to_the_same_file_at_once(tmp_path: Path) -> None:
    path, spawning = tmp_path / "requests.jsonl", multiprocessing.get_context("spawn")
    start = spawning.Barrier(2)
    processes = [spawning.Process(target=_append_often, args=(path, start, who)) for who in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    found = Counter(path.read_text().splitlines())
    assert found == dict.fromkeys(("a", "b", "a" * LONG, "b" * LONG), APPENDS)


def test_a_worker_waits_for_another_ones_batch_to_be_whole_or_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    with path.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer = threading.Thread(target=append, args=(path, b"{}\n"))
        writer.start()
        while writer.is_alive() and not waits_for(other.fileno()):
            pass
        assert path.read_bytes() == b""
    writer.join(60)
    assert path.read_bytes() == b"{}\n"


def waits_for(file: int) -> bool:
    """Whether somebody waits for a lock on it: the kernel's list marks him with an arrow."""
    inode = f":{os.fstat(file).st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.parametrize("secret", ["key", "body", "prompt", "content", "traceparent"])
def test_no_field_could_hold_a_text_or_a_key(secret: str) -> None:
    assert secret not in Line.__struct_fields__
