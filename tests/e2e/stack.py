"""The whole stack, as `tokenpool up` starts it, and what tests ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 60
STOP_SECONDS = 30


@dataclass(frozen=True)
class Stack:
    base_url: str  # of clients: http://127.0.0.1:PORT/v1
    admin_url: str
    run_dir: Path
    pid: int

    def state(self) -> dict[str, Any]:
        with fetched(f"{self.admin_url}/api/v1/state") as answer:
            return dict(json.load(answer))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels, over all workers."""
        with fetched(f"{self.admin_url}/metrics") as answer:
            text = answer.read().decode()
        total = 0.0
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            if re.match(rf"{name}(\{{|$)", series) and all(
                f'{key}="{label}"' in series for key, label in labels.items()
            ):
                total += float(value)
        return total

    def simulators(self, pool: str) -> list[str]:
        """URLs of the simulated servers of a pool."""
        found = []
        for log in sorted(self.run_dir.glob(f"sim*{pool}*.log")):
            found += re.findall(r"tokenpool sim is ready: (\S+)", log.read_text())
        return found

    def totals(self) -> dict[str, int]:
        """What all simulated servers together told their clients."""
        sums: dict[str, int] = {}
        for pool in ("short", "long"):
            for url in self.simulators(pool):
                with fetched(f"{url}/sim/totals") as answer:
                    for key, value in json.load(answer).items():
                        sums[key] = sums.get(key, 0) + value
        return sums

    def last(self, pool: str) -> dict[str, Any]:
        """The last request that a pool's server received."""
        [url] = self.simulators(pool)
        with fetched(f"{url}/sim/last") as answer:
            return dict(json.load(answer))

    def workers(self) -> list[int]:
        """Process ids of the sidecar's workers."""
        return children(self.pid, "worker")


def children(pid: int, word: str | None = None) -> list[int]:
    """Descendants of a process; with a word, those that have it in their command line."""
    family, found = {pid}, []
    for child in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
            if parent in family:
                family.add(child)
                words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                found += [child] if word is None or word in words else []
    return found


def fetched(url: str) -> contextlib.closing[http.client.HTTPResponse]:
    return contextlib.closing(urllib.request.urlopen(url))  # noqa: S310 - our own server's


@contextlib.contextmanager
def running(config: str, folder: Path, workers: int = 2, *more: str) -> Iterator[Stack]:
    """`tokenpool up` with this configuration, on ports that the system picks, until the block ends."""
    path = folder / "tokenpool.yaml"
    path.write_text(textwrap.dedent(config))
    ports = ["--port", "0", "--admin-port", "0", "--envoy-admin-port", "0"]
    options = ["--config", str(path), *ports, "--workers", str(workers), *more]
    command = [sys.executable, "-m", "extproc.cli", "up", *options]
    output, errors = folder / "up.out", folder / "up.err"
    with output.open("w") as stdout, errors.open("w") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        yield _ready(process, output, errors)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_SECONDS)
    assert code == 0, errors.read_text()


def _ready(process: subprocess.Popen[bytes], output: Path, errors: Path) -> Stack:
    text, deadline = "", time.monotonic() + START_SECONDS
    while "Ctrl-C" not in text:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the stack did not start: {text}\n{errors.read_text()}")
        time.sleep(0.02)
        text = output.read_text()
    found = re.search(r"ready: (\S+)(?s:.*)metrics\s+(\S+)/metrics(?s:.*)logs\s+(\S+)", text)
    assert found, text
    return Stack(found[1], found[2], Path(found[3]), process.pid)


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Waits for what must come to be; fails where it does not in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, "it did not come to be in time"
        await asyncio.sleep(0.02)


def idle(state: dict[str, Any]) -> bool:
    """Whether every counter of every model is exactly zero."""
    return all(
        model["leases"] == 0
        and all(value == 0 for pool in model["pools"].values() for value in pool["in_use"].values())
        and all(value == 0 for tenant in model["entitlements"].values() for value in tenant["in_use"].values())
        for model in state["models"].values()
    )
