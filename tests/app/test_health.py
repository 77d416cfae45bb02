"""Probes of real servers, on ports that the system picks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Self

import pytest
from aiohttp import web

from extproc.core.policy import Model, Policy, Pool, Vector
from extproc.health import Health, Place
from tests.app.conftest import free_port, until

INTERVAL_SECONDS = 0.02
SERVER = Vector(1000, 100_000, 16)


class Vllm:
    """A server whose health a test sets; `port` is its own for good."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 200
        self.hangs = False
        self._let_go = asyncio.Event()
        self.asked = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> Self:
        app = web.Application()
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        return self

    async def stop(self) -> None:
        self._let_go.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _health(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.hangs:
            await self._let_go.wait()
        return web.Response(status=self.status)


@pytest.fixture
async def servers() -> AsyncIterator[list[Vllm]]:
    found = [await Vllm().start() for _ in range(3)]
    yield found
    for server in found:
        await server.stop()


def policy(*pools: tuple[str, ...]) -> Policy:
    """A model `m` with pools of these endpoints."""
    return Policy((Model("m", tuple(Pool(f"p{i}", urls, 8192 << i, SERVER) for i, urls in enumerate(pools))),), ())


@contextlib.asynccontextmanager
async def probing(of: Policy, addresses: Mapping[Place, str] | None = None) -> AsyncIterator[Health]:
    health = Health(of, addresses or {}, INTERVAL_SECONDS)
    task = asyncio.create_task(health.run())
    try:
        yield health
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled(health: Health, *live: int) -> None:
    async def so() -> bool:
        return health.live("m") == live

    await until(so, 10)


async def probed(*servers: Vllm, times: int = 3) -> None:
    begun = [server.asked for server in servers]

    async def so() -> bool:
        return all(server.asked >= before + times for server, before in zip(servers, begun, strict=True))

    await until(so, 10)


async def test_servers_that_answer_are_live_by_pool(servers: list[Vllm]) -> None:
    async with probing(policy((servers[0].url, servers[1].url), (servers[2].url,))) as health:
        await probed(*servers)
        assert health.live("m") == (2, 1)


async def test_a_server_that_has_gone_is_dead_until_it_is_back(servers: list[Vllm]) -> None:
    async with probing(policy((servers[0].url, servers[1].url))) as health:
        await probed(*servers[:2])
        await servers[0].stop()
        await settled(health, 1)
        await servers[0].start()
        await settled(health, 2)


async def test_a_server_that_says_it_is_ill_is_dead(servers: list[Vllm]) -> None:
    async with probing(policy((servers[0].url, servers[1].url))) as health:
        servers[1].status = 503
        await settled(health, 1)


async def test_one_failure_is_no_death(servers: list[Vllm]) -> None:
    health = Health(policy((servers[0].url,)), {}, 3600)
    servers[0].status = 503
    task = asyncio.create_task(health.run())
    await probed(servers[0], times=1)
    assert health.live("m") == (1,)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_server_that_hangs_is_dead_and_holds_up_no_other(servers: list[Vllm]) -> None:
    servers[0].hangs = True
    async with probing(policy((servers[0].url, servers[1].url))) as health:
        await probed(servers[1], times=10)
        assert servers[0].asked == 1
        await settled(health, 1)


async def test_a_pool_all_of_whose_servers_have_gone_has_none(servers: list[Vllm]) -> None:
    async with probing(policy((servers[0].url, servers[1].url))) as health:
        await probed(*servers[:2])
        await servers[0].stop()
        await servers[1].stop()
        await settled(health, 0)


async def test_a_pool_that_never_answered_counts_as_all_live_and_is_told_of_once(
    servers: list[Vllm], caplog: pytest.LogCaptureFixture
) -> None:
    """Envoy may reach what this process cannot."""
    dead = (f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")
    with caplog.at_level(logging.INFO, "extproc.health"):
        async with probing(policy(dead, (servers[0].url,))) as health:

            async def told() -> bool:
                return bool(caplog.messages)

            await until(told, 10)
            await probed(servers[0], times=5)
            assert health.live("m") == (2, 1)
    assert caplog.messages == ["no server of m/p0 can be reached from here: all of them count as live"]


async def test_a_simulated_server_is_asked_where_it_is_said_to_be(servers: list[Vllm]) -> None:
    places: dict[Place, str] = {("m", "p0", 0): servers[0].url, ("m", "p0", 1): servers[1].url}
    async with probing(policy(("sim://?seed=1", "sim://?seed=2")), places) as health:
        await probed(*servers[:2])
        await servers[1].stop()
        await settled(health, 1)


async def test_a_simulated_server_that_is_nowhere_counts_as_live(servers: list[Vllm]) -> None:
    async with probing(policy(("sim://", servers[0].url))) as health:
        await probed(servers[0])
        await servers[0].stop()
        await settled(health, 1)


async def test_only_the_root_of_a_server_is_asked(servers: list[Vllm]) -> None:
    async with probing(policy((f"{servers[0].url}/some/path",))) as health:
        await probed(servers[0])
        assert health.live("m") == (1,)


async def test_changes_are_logged_once_each(servers: list[Vllm], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "extproc.health"):
        async with probing(policy((servers[0].url,))) as health:
            await probed(servers[0])
            servers[0].status = 500
            await settled(health, 0)
            await probed(servers[0])
            servers[0].status = 200
            await settled(health, 1)
    url = f"{servers[0].url}/health"
    assert caplog.messages == [f"{url} of m/p0 does not answer", f"{url} of m/p0 answers again"]
