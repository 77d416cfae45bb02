"""Programs that a test starts, waits for and ends."""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 40.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05
CONSECUTIVE_TRIES = 50
UNASSIGNED_PORTS = (20_000, 32_000)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: str


@contextmanager
def running(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """One program for the length of the block; its output is in the log."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=log.parent
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(answered: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until it is so; quotes the log where the program ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not answered():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"not up (exit code {process.poll()}):\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(POLL_SECONDS)


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> Answer | None:
    return ask("GET", port, path, headers or {}, None)


def ask(method: str, port: int, path: str, headers: Mapping[str, str], body: str | None) -> Answer | None:
    """None where nothing answers there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read().decode())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def answers_200(port: int, path: str) -> bool:
    answer = get(port, path)
    return answer is not None and answer.status == http.client.OK


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def two_free_ports() -> int:
    """The first of two that follow each other. Below the ports that the system gives to outgoing connections."""
    for first in random.sample(range(*UNASSIGNED_PORTS, 2), CONSECUTIVE_TRIES):
        with socket.socket() as one, socket.socket() as next_one:
            try:
                one.bind(("127.0.0.1", first))
                next_one.bind(("127.0.0.1", first + 1))
            except OSError:
                continue
            return first
    raise RuntimeError("no two free ports follow each other")
