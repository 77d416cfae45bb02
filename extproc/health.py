"""Which servers answer: asks each one for /health, as Envoy does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp

from extproc.core.policy import SIMULATED, Policy

FAILURES = 2  # in a row; then a server is dead
RETURNS = 3  # good answers in a row; then it lives again. Envoy asks every two seconds, and must have seen it before
INTERVAL_SECONDS = 1.0  # at most
ANSWER_SECONDS = 1.0
MOST_AT_ONCE = 100

Place = tuple[str, str, int]  # model, pool, and which of the pool's endpoints, from 0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Server:
    url: str | None  # None: nobody said where it is; it counts as live
    answered: bool = False  # ever, whatever it said
    live: bool = True
    failures: int = 0  # in a row
    successes: int = 0  # in a row

    def answers(self, *, well: bool) -> None:
        self.failures, self.successes = (0, self.successes + 1) if well else (self.failures + 1, 0)
        if self.live:
            self.live = self.failures < FAILURES
        else:
            self.live = self.successes >= RETURNS


@dataclass(slots=True)
class _Pool:
    name: str  # MODEL/POOL
    servers: tuple[_Server, ...]
    told: bool = field(default=False)

    @property
    def reached(self) -> bool:
        return any(server.answered for server in self.servers)

    @property
    def live(self) -> int:
        """All of them where none ever answered: Envoy may reach what this process cannot."""
        return sum(server.live for server in self.servers) if self.reached else len(self.servers)


class Health:
    """`addresses` says where the servers of `sim://` endpoints are."""

    def __init__(self, policy: Policy, addresses: Mapping[Place, str], interval_seconds: float) -> None:
        self._interval_seconds = min(INTERVAL_SECONDS, interval_seconds)
        self._at_once = asyncio.Semaphore(MOST_AT_ONCE)
        self._pools = {
            model.name: tuple(
                _Pool(
                    f"{model.name}/{pool.name}",
                    tuple(
                        _Server(_url(addresses.get((model.name, pool.name, index), endpoint)))
                        for index, endpoint in enumerate(pool.endpoints)
                    ),
                )
                for pool in model.pools
            )
            for model in policy.models
        }

    def live(self, model: str) -> tuple[int, ...]:
        """Servers of each pool, in the order of the policy."""
        return tuple(pool.live for pool in self._pools[model])

    async def run(self) -> None:
        """Until cancelled."""
        timeout, connector = aiohttp.ClientTimeout(total=ANSWER_SECONDS), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as client:
            pools = [pool for of_model in self._pools.values() for pool in of_model]
            await asyncio.gather(
                *(
                    self._watch(client, pool, server, server.url)
                    for pool in pools
                    for server in pool.servers
                    if server.url is not None
                )
            )

    async def _watch(self, client: aiohttp.ClientSession, pool: _Pool, server: _Server, url: str) -> None:
        while True:
            async with self._at_once:
                status = await _status(client, url)
            was_live = server.live
            server.answered = server.answered or status is not None
            server.answers(well=status == HTTPStatus.OK)
            if server.live != was_live and pool.reached:
                log.info("%s of %s %s", url, pool.name, "answers again" if server.live else "does not answer")
            self._tell(pool)
            await asyncio.sleep(self._interval_seconds)

    def _tell(self, pool: _Pool) -> None:
        if not (pool.told or pool.reached) and all(not server.live for server in pool.servers):
            pool.told = True
            log.warning("no server of %s can be reached from here: all of them count as live", pool.name)


async def _status(client: aiohttp.ClientSession, url: str) -> int | None:
    try:
        async with client.get(url, allow_redirects=False) as answer:
            return answer.status
    except (aiohttp.ClientError, OSError, ValueError):  # a time-out; a name that no host can have
        return None


def _url(endpoint: str) -> str | None:
    """Where Envoy asks, too: at the server's root, whatever path the endpoint has."""
    parts = urlsplit(endpoint)
    return None if endpoint.startswith(SIMULATED) else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/health"
