"""The real stack of a run: simulated servers that can be killed and started again, and `tokenpool up` in front."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from extproc.local.faults import StackError
from extproc.local.processes import Child, Children
from extproc.local.programs import tokenpool
from extproc.local.simulators import listening
from extproc.scenario.configuration import MAX_MODEL_LEN, MODEL, SLOT_KV_TOKENS, Terms, document, server_url

WORKERS = 2  # of the sidecar: what one grants, the other must know
LAST_LINE = "Ctrl-C stops everything."  # of what `tokenpool up` prints
READY = "tokenpool is ready: "
METRICS = "  metrics  "
RESTART_SECONDS = 30.0


@dataclass(slots=True)
class Server:
    """One simulated server; `url` stays the same over restarts."""

    child: Child
    url: str


class Servers:
    """Of one pool. Their deaths are part of the scenario, so nobody else watches them."""

    def __init__(self, children: Children, terms: Terms, speed: float) -> None:
        self._children = children
        self._terms = terms
        self._speed = speed
        self._all: list[Server] = []

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.url for server in self._all)

    async def start(self) -> None:
        """Raises StackError where one cannot start."""
        children = [await self._child(index, port=0) for index in range(self._terms.fleet.servers)]
        for child in children:
            self._all.append(Server(child, await self._listening(child)))

    def kill(self, index: int) -> None:
        """As a machine fails: what it was answering breaks off."""
        self._all[index].child.process.kill()

    async def restart(self, index: int) -> None:
        server = self._all[index]
        server.child = await self._child(index, port=int(server.url.rpartition(":")[2]))
        await self._listening(server.child)

    def require_alive(self) -> None:
        """Raises StackError where one has died that nobody killed, or was not started again."""
        for server in self._all:
            if server.child.process.returncode is not None:
                raise StackError(f"{server.child.name} ended with exit code {server.child.process.returncode}")

    async def _child(self, index: int, port: int) -> Child:
        command = tokenpool(
            *("sim", "--url", server_url(self._terms.fleet), "--speed", f"{self._speed:g}", "--model", MODEL),
            *("--max-model-len", str(MAX_MODEL_LEN), "--concurrency", str(self._terms.fleet.slots)),
            *("--kv-tokens", str(self._terms.fleet.slots * SLOT_KV_TOKENS), "--port", str(port)),
        )
        return await self._children.start("sim", command, name=f"sim {index}")

    async def _listening(self, child: Child) -> str:
        waits = asyncio.create_task(listening(child))
        dies = asyncio.create_task(child.process.wait())
        await asyncio.wait((waits, dies), timeout=RESTART_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        dies.cancel()
        if not waits.done():
            waits.cancel()
            raise StackError(f"{child.name} does not start: {' '.join(child.lines) or 'it says nothing'}")
        return waits.result()


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the running stack is found."""

    base_url: str  # of clients, with /v1
    admin_url: str


async def up(children: Children, folder: Path, terms: Terms, servers: Servers, speed: float) -> Reach:
    """Starts `tokenpool up`; returns once a request would succeed. Raises StackError."""
    config = folder / "tokenpool.yaml"
    config.write_text(json.dumps(document(terms, servers.urls, speed), indent=2))  # JSON is YAML, too
    ports = ("--port", "0", "--admin-port", "0", "--envoy-admin-port", "0")
    child = await children.start(
        "up", tokenpool("up", "--config", str(config), *ports, "--workers", str(WORKERS)), name="tokenpool up"
    )
    await child.line(LAST_LINE)
    return Reach(said(child.lines, READY), said(child.lines, METRICS).removesuffix("/metrics"))


def said(lines: Iterable[str], label: str) -> str:
    """What follows the label. Raises StackError where no line has it."""
    for line in lines:
        if line.startswith(label):
            return line.removeprefix(label).strip()
    raise StackError(f"`tokenpool up` did not say where it listens ({label.strip()})")
