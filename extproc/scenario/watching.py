"""What the stack says of itself during a run, once a tick: the sidecar's state document and the servers' counters."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from extproc.scenario.client import Clock
from extproc.scenario.configuration import MODEL, POOL
from extproc.scenario.stack import Reach

ANSWER_SECONDS = 2.0
_COUNTER = re.compile(r"^vllm:generation_tokens_total\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TenantSample:
    """Slots, where nothing else is said."""

    in_use: int
    share: float
    cap: float
    debt: float
    weight: float
    waiting: int


@dataclass(frozen=True, slots=True)
class Sample:
    at: float  # scenario seconds
    servers: int  # that the sidecar counts on
    server_tokens: int  # that all servers together have generated since the run began
    tenants: Mapping[str, TenantSample]


class Fleet(Protocol):
    @property
    def urls(self) -> Sequence[str]: ...


class Watch:
    """Asks once a tick, and when it is told to."""

    def __init__(self, session: aiohttp.ClientSession, reach: Reach, servers: Fleet, clock: Clock) -> None:
        self.samples: list[Sample] = []
        self._session = session
        self._reach = reach
        self._servers = servers
        self._clock = clock
        self._seen: dict[str, tuple[int, int]] = {}  # by server: tokens of its earlier lives, tokens of this one

    async def follow(self, every: float) -> None:
        """Until cancelled. A sample that is not answered is left out."""
        at = 0.0
        while True:
            await self._clock.until(at)
            await self.look()
            at = max(at + every, self._clock.now)

    async def look(self) -> None:
        try:
            document = await self._state()
        except (aiohttp.ClientError, TimeoutError):
            return
        tokens = sum(await asyncio.gather(*map(self._server_tokens, self._servers.urls)))
        self.samples.append(sample(document, self._clock.now, tokens))

    async def _state(self) -> Mapping[str, Any]:
        async with self._session.get(f"{self._reach.admin_url}/api/v1/state", raise_for_status=True) as answer:
            document: Mapping[str, Any] = await answer.json()
            return document

    async def _server_tokens(self, url: str) -> int:
        """A server that was started again counts from 0."""
        earlier, before = self._seen.get(url, (0, 0))
        try:
            async with self._session.get(f"{url}/metrics") as answer:
                found = _COUNTER.search(await answer.text())
        except (aiohttp.ClientError, TimeoutError):
            return earlier + before
        now = int(float(found[1])) if found else 0
        if now < before:
            earlier += before
        self._seen[url] = (earlier, now)
        return earlier + now


def sample(document: Mapping[str, Any], at: float, server_tokens: int) -> Sample:
    model = document["models"][MODEL]
    tenants = {name: tenant_sample(one) for name, one in model["entitlements"].items()}
    return Sample(at, model["pools"][POOL]["servers"], server_tokens, tenants)


def tenant_sample(one: Mapping[str, Any]) -> TenantSample:
    return TenantSample(
        in_use=one["in_use"]["concurrency"],
        share=one["share"]["concurrency"],
        cap=one.get("cap", one["burst"])["concurrency"],
        debt=one["debt"],
        weight=one["weight"],
        waiting=one.get("waiting", 0),
    )
