"""The request log: a JSON line for each settled request, to be read back as a trace. Never a body, never a key.

Settlements only put facts in a queue. A thread writes them twice a second, so that no disk holds up a verdict. It opens
the file each time: one that was moved away is simply made anew. Workers share the file: a batch is whole lines under a
lock, and one that does not fit on the disk leaves nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from extproc.core.observed import Decided, Observer, Settled

INTERVAL_SECONDS = 0.5
CLOSE_SECONDS = 2.0
MOST_WAITING = 50_000  # lines held while the disk hangs; further ones are lost, and counted
MODE = 0o640

log = logging.getLogger(__name__)


class Line(msgspec.Struct):
    """The fields of a line, which docs/traces.md explains."""

    time: float
    model: str
    entitlement: str
    pool: str
    category: str
    status: int
    source: str
    prompt_tokens: int
    completion_tokens: int
    prompt_estimate: int
    reserved_tokens: int
    ttft_ms: float | None
    duration_ms: float
    misrouted: bool
    truncated: bool


def line_of(fact: Settled) -> Line:
    return Line(
        time=round(fact.at_ns / 1e9 - fact.duration_seconds, 6),
        model=fact.model,
        entitlement=fact.entitlement,
        pool=fact.pool,
        category=fact.category,
        status=fact.status,
        source=fact.source,
        prompt_tokens=fact.prompt_tokens,
        completion_tokens=fact.completion_tokens,
        prompt_estimate=fact.prompt_estimate,
        reserved_tokens=fact.reserved_tokens,
        ttft_ms=None if fact.ttft_seconds is None else round(fact.ttft_seconds * 1000, 3),
        duration_ms=round(fact.duration_seconds * 1000, 3),
        misrouted=fact.misrouted,
        truncated=fact.truncated,
    )


class RequestLog:
    """Writes from a thread of its own, from `start` to `close`."""

    def __init__(self, path: Path, lost: Callable[[int], None]) -> None:
        self._path = path
        self._lost = lost
        self._waiting: deque[Settled] = deque()
        self._failing = False
        self._closing = threading.Event()
        # A daemon: a disk that hangs does not keep the process from its end.
        self._thread = threading.Thread(target=self._write_until_closed, name="request log", daemon=True)

    def add(self, fact: Settled) -> None:
        """Returns at once."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(fact)
        else:
            self._lose(1, "the disk does not keep up")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Writes what waits; gives up after CLOSE_SECONDS."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def flush(self) -> None:
        facts = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not facts:
            return
        try:
            append(self._path, msgspec.json.Encoder().encode_lines([line_of(fact) for fact in facts]))
        except OSError as error:
            self._lose(len(facts), error.strerror or str(error))
            return
        if self._failing:
            self._failing = False
            log.warning("the request log %s is written again", self._path)

    def _write_until_closed(self) -> None:
        while not self._closing.wait(INTERVAL_SECONDS):
            self.flush()
        self.flush()

    def _lose(self, lines: int, why: str) -> None:
        self._lost(lines)
        if not self._failing:
            self._failing = True
            log.warning("the request log %s is not written: %s; see tokenpool_request_log_lost_total", self._path, why)


def append(path: Path, lines: bytes) -> None:
    """All of the lines or none. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, MODE)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file unlocks it
        size = os.fstat(file).st_size
        try:
            while lines:
                lines = lines[os.write(file, lines) :]
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


@contextmanager
def logged(observer: Observer, path: Path | None, lost: Callable[[int], None]) -> Iterator[Observer]:
    """An observer that passes each fact on, and writes settlements to the file, if one is named, until the block ends.

    `lost` is told how many lines could not be written, from any thread.
    """
    if path is None:
        yield observer
        return
    request_log = RequestLog(path, lost)
    request_log.start()
    try:
        yield _Logged(observer, request_log)
    finally:
        request_log.close()


class _Logged:
    def __init__(self, observer: Observer, request_log: RequestLog) -> None:
        self._observer = observer
        self._request_log = request_log

    def decided(self, fact: Decided) -> None:
        self._observer.decided(fact)

    def settled(self, fact: Settled) -> None:
        self._observer.settled(fact)
        self._request_log.add(fact)

    def preempted(self, model: str, entitlement: str, service_class: str) -> None:
        self._observer.preempted(model, entitlement, service_class)

    def ledger_call(self, operation: str, requests: int, seconds: float) -> None:
        self._observer.ledger_call(operation, requests, seconds)

    def ledger_failed(self, operation: str) -> None:
        self._observer.ledger_failed(operation)
