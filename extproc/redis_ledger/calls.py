"""Calls to the server: connection, key names, scripts, time-outs, errors mapped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from extproc import lua
from extproc.core.observed import Observer
from extproc.ledger import LedgerUnavailable

T = TypeVar("T")

KEY_LIFETIME_MS = 7 * 86_400_000  # idle state goes away by itself; buckets are full long before
LEARNED_LIFETIME_MS = 90 * 86_400_000
PATIENT_SECONDS = 2.0  # what nobody waits for may take: everything but a verdict's own calls


def connect(url: str) -> redis.asyncio.Redis:
    """A client that never retries by itself: a verdict has no time for it, and settlements are retried above."""
    return redis.asyncio.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=1.0, decode_responses=True, health_check_interval=0
    )


def keys(model: str, *names: str) -> list[str]:
    return [f"tp3:{{{model}}}:{name}" for name in names]


def pairs(flat: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)


class Calls:
    """`now_ms` is for tests: without it the server's clock is used."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        observer: Observer,
        operations: Sequence[str],
        now_ms: Callable[[], int] | None,
    ) -> None:
        self.client = client
        self._observer = observer
        self._now_ms = now_ms
        self._scripts = {name: client.register_script(lua.source(name)) for name in operations}

    def now(self) -> str:
        """As scripts take it."""
        return "" if self._now_ms is None else str(self._now_ms())

    async def run(
        self,
        name: str,
        keys: list[str],
        arguments: Sequence[object],
        requests: int = 1,
        seconds: float = PATIENT_SECONDS,
    ) -> Any:  # noqa: ANN401 - what the script returns
        """One operation of `lua/`. Raises LedgerUnavailable."""
        script = self._scripts[name]
        return await self.timed(name, requests, lambda: script(keys=keys, args=arguments), seconds)  # type: ignore[arg-type]

    async def timed(
        self, operation: str, requests: int, call: Callable[[], Awaitable[T]], seconds: float = PATIENT_SECONDS
    ) -> T:
        """Raises LedgerUnavailable where the call fails or takes longer."""
        started = time.perf_counter()
        task = asyncio.ensure_future(call())
        try:
            return await _in_time(task, seconds)
        except (RedisError, OSError, TimeoutError) as fault:
            self._observer.ledger_failed(operation)
            raise LedgerUnavailable(f"{operation}: {fault!r}") from fault
        finally:
            self._observer.ledger_call(operation, requests, time.perf_counter() - started)


async def _in_time(task: asyncio.Future[T], seconds: float) -> T:
    try:
        await asyncio.wait((task,), timeout=seconds)
        if not task.done():  # this process may have been the slow one: let it read what has arrived
            await asyncio.wait((task,), timeout=0.001)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds * 1000:.0f} ms")
        return task.result()
    finally:
        task.cancel()
