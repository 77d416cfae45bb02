"""Several sidecars on one server: one leads, another takes over, and who was stopped cannot undo what came after."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio

from extproc.redis_ledger import connect
from tests.app.conftest import CONFIG, Serve, started, until

TICK_MS = 200
STOPPED_SECONDS = 10.0
BUSY_SECONDS = 1.5  # what a busy machine may add
TICKING = f"tick_ms: {TICK_MS}\n{CONFIG}"
LEADER, SHARES = "tp3:{llama}:leader", "tp3:{llama}:shares"


@pytest.fixture
async def client(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    found = connect(url)
    await found.flushall()
    yield found
    await found.aclose()


@contextlib.asynccontextmanager
async def sidecars(folder: Path, url: str, count: int) -> AsyncIterator[dict[int, Serve]]:
    """By the id of the first process of each."""
    async with contextlib.AsyncExitStack() as stack:
        found = {}
        for number in range(count):
            own = folder / str(number)
            own.mkdir()
            serve = await stack.enter_async_context(started(own, "--redis", url, workers=1, config=TICKING))
            found[serve.process.pid] = serve
        for serve in found.values():
            await until(serve.is_up)
        yield found


async def leader(client: redis.asyncio.Redis) -> int:
    """Its process id; 0 before the first."""
    holder = str(await client.hget(LEADER, "holder") or "::")
    return int(holder.split(":")[1] or 0)


async def ticked_at(client: redis.asyncio.Redis) -> int:
    return int(await client.hget(SHARES, "tick at") or 0)


class Writes:
    """Every write to the shares that took effect, as the server itself tells: when their ticks were, in ms."""

    def __init__(self, url: str) -> None:
        self._client = redis.asyncio.from_url(url, decode_responses=True, socket_timeout=None)  # it may be quiet
        self.ticks: list[int] = []

    async def watch(self) -> None:
        async with self._client.monitor() as monitor:
            async for said in monitor.listen():
                if said["command"].startswith(f"HSET {SHARES} "):
                    self.ticks += [int(ms) for ms in re.findall(r"tick at (\d+)", said["command"])]

    async def close(self) -> None:
        await self._client.aclose()


@pytest.fixture
async def writes(url: str) -> AsyncIterator[Writes]:
    found = Writes(url)
    task = asyncio.create_task(found.watch())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await found.close()


async def test_one_of_two_leads_and_a_stopped_leader_that_wakes_changes_nothing(
    url: str, client: redis.asyncio.Redis, writes: Writes, tmp_path: Path
) -> None:
    async with sidecars(tmp_path, url, 2) as both:

        async def taken() -> bool:
            return len(writes.ticks) > 5

        await until(taken)
        first = await leader(client)
        [second] = both.keys() - {first}
        assert "extproc.controller: leads llama, term" in both[first].stderr.read_text()
        assert "leads llama" not in both[second].stderr.read_text()

        both[first].process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        try:

            async def taken_over() -> bool:
                return await leader(client) == second

            await until(taken_over)
            assert time.monotonic() - stopped < 3 * TICK_MS / 1000 + BUSY_SECONDS
            term = await client.hget(LEADER, "term")

            async def long_enough() -> bool:
                return time.monotonic() - stopped > STOPPED_SECONDS

            await until(long_enough)  # the promise is about real time
        finally:
            both[first].process.send_signal(signal.SIGCONT)

        async def woken() -> bool:
            return "leads llama no longer" in both[first].stderr.read_text()

        await until(woken)
        written = len(writes.ticks)

        async def several_more() -> bool:
            return len(writes.ticks) > written + 5

        await until(several_more)
        assert await leader(client) == second
        assert await client.hget(LEADER, "term") == term
    assert all(earlier < later for earlier, later in itertools.pairwise(writes.ticks))
    gaps = [later - earlier for earlier, later in itertools.pairwise(writes.ticks)]
    assert max(gaps) < 3 * TICK_MS + BUSY_SECONDS * 1000


async def test_of_three_that_are_killed_one_after_another_the_last_leads(
    url: str, client: redis.asyncio.Redis, tmp_path: Path
) -> None:
    async with sidecars(tmp_path, url, 3) as left:

        async def led() -> bool:
            return await leader(client) in left and await ticked_at(client) > before

        before = 0
        while left:
            await until(led)
            gone = left.pop(await leader(client))
            gone.process.kill()
            await gone.process.wait()
            before = await ticked_at(client)


async def test_the_state_shows_what_a_tick_has_set(url: str, client: redis.asyncio.Redis, tmp_path: Path) -> None:
    async with sidecars(tmp_path, url, 1) as alone:
        [serve] = alone.values()

        async def ticked() -> bool:
            return await ticked_at(client) > 0

        await until(ticked)
        async with serve.http.get(f"http://127.0.0.1:{serve.admin_port}/api/v1/state") as answer:
            llama = (await answer.json())["models"]["llama"]
    assert llama["pools"]["default"]["desired"] == 1
    assert llama["entitlements"]["acme"]["share"] == llama["entitlements"]["acme"]["base"]
