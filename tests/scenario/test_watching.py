from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from extproc.admin import document
from extproc.core.policy import Entitlement, Model, Policy, Pool, ServiceClass, Vector
from extproc.ledger import EntitlementState, ModelState, PoolState
from extproc.scenario.client import Clock
from extproc.scenario.configuration import MODEL, POOL
from extproc.scenario.stack import Reach
from extproc.scenario.watching import Watch, sample

BASE, CAPS = Vector(100, 20_000, 5), Vector(160, 32_000, 8)
POLICY = Policy(
    (Model(MODEL, (Pool(POOL, ("http://a:1", "http://b:1"), 4096, Vector(160, 32_000, 8)),)),),
    (Entitlement("one", MODEL, ServiceClass.ELASTIC, BASE, CAPS),),
)
STATE = ModelState(
    pools={POOL: PoolState(Vector(0, 0, 3), servers=1)},
    entitlements={
        "one": EntitlementState(
            in_use=Vector(0, 4000, 3),
            peak=Vector(),
            balance_tokens=0,
            share=Vector(80, 16_000, 4),
            cap=Vector(120, 24_000, 6),
            debt=0.25,
            weight=2.0,
            waiting=7,
        )
    },
)


class Fleet:
    """Servers that a watch asks."""

    def __init__(self, *urls: str) -> None:
        self.urls = urls


class Told:
    """A sidecar and a server whose figures the test sets."""

    def __init__(self) -> None:
        self.tokens: int | None = 0
        self.state_status = 200

    async def state(self, _request: web.Request) -> web.Response:
        return web.json_response(document(POLICY, {MODEL: STATE}, degraded=False), status=self.state_status)

    async def metrics(self, _request: web.Request) -> web.Response:
        if self.tokens is None:
            return web.Response(status=503)
        return web.Response(text=f'vllm:generation_tokens_total{{engine="0",model_name="m"}} {self.tokens}.0\n')


@asynccontextmanager
async def watching(told: Told) -> AsyncIterator[Watch]:
    app = web.Application()
    app.router.add_get("/api/v1/state", told.state)
    app.router.add_get("/metrics", told.metrics)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as session:
            yield Watch(session, Reach("", url), Fleet(url), Clock.started(100))
    finally:
        await runner.cleanup()


def test_a_sample_holds_what_the_sidecar_says_of_each_tenant_in_slots() -> None:
    found = sample(document(POLICY, {MODEL: STATE}, degraded=False), 3.0, 99)
    assert (found.at, found.servers, found.server_tokens) == (3.0, 1, 99)
    one = found.tenants["one"]
    assert (one.in_use, one.share, one.debt, one.weight, one.waiting) == (3, 4, 0.25, 2.0, 7)


async def test_a_server_that_starts_again_adds_to_what_it_generated_before() -> None:
    told = Told()
    async with watching(told) as watch:
        for told.tokens in (10, 50, None, 5, 20):
            await watch.look()
    assert [one.server_tokens for one in watch.samples] == [10, 50, 50, 55, 70]


async def test_a_state_that_is_not_answered_is_left_out() -> None:
    told = Told()
    async with watching(told) as watch:
        for told.state_status in (200, 503, 200):
            await watch.look()
    assert len(watch.samples) == 2


async def test_it_looks_once_a_tick() -> None:
    async with watching(Told()) as watch:
        following = asyncio.create_task(watch.follow(10.0))  # every 100 ms
        while len(watch.samples) < 3:  # noqa: ASYNC110 - the test's timeout is the limit
            await asyncio.sleep(0.01)
        following.cancel()
    assert all(10.0 * index <= one.at for index, one in enumerate(watch.samples))
