"""Envoy as a child process of a test."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

BINARY = Path(sys.executable).parent / "envoy"
START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Envoy:
    port: int
    admin_port: int
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def admin(self, path: str) -> str:
        async with self.client.get(f"http://127.0.0.1:{self.admin_port}{path}") as reply:
            return await reply.text()


def validate(file: Path) -> str:
    """Envoy's complaint about a configuration; empty where it accepts it."""
    done = subprocess.run(
        [BINARY, "--mode", "validate", "--log-level", "error", "-c", file], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@asynccontextmanager
async def running(file: Path, port: int, admin_port: int) -> AsyncIterator[Envoy]:
    """Runs Envoy with the configuration until the block ends."""
    with (file.parent / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            BINARY,
            *("-c", file, "--concurrency", "2", "--disable-hot-restart", "--log-level", "warning"),
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as client:
            envoy = Envoy(port, admin_port, client)
            await _ready(envoy, process)
            yield envoy
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(envoy: Envoy, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.returncode is None, "Envoy ended: see envoy.log"
            try:
                if (await envoy.admin("/ready")).startswith("LIVE"):
                    return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)  # polls: nothing tells when another process is ready
