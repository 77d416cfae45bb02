from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from extproc.local import drain


class EnvoyAdmin:
    """Counts one request under way fewer each time it is asked."""

    def __init__(self) -> None:
        self.url = ""
        self.active = 3
        self.drained = False

    async def drain_listeners(self, _: web.Request) -> web.Response:
        self.drained = True
        return web.Response(text="OK")

    async def stats(self, _: web.Request) -> web.Response:
        names = {"http.ingress.downstream_rq_active": self.active, "http.admin.downstream_rq_active": 1}
        self.active = max(0, self.active - 1)
        return web.json_response({"stats": [{"name": name, "value": value} for name, value in names.items()]})


@pytest_asyncio.fixture
async def admin() -> AsyncIterator[EnvoyAdmin]:
    played = EnvoyAdmin()
    app = web.Application()
    app.router.add_post("/drain_listeners", played.drain_listeners)
    app.router.add_get("/stats", played.stats)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    played.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield played
    await runner.cleanup()


async def test_requests_under_way_are_waited_for(admin: EnvoyAdmin) -> None:
    await drain.drain(admin.url)
    assert admin.drained
    assert admin.active == 0


async def test_waiting_has_a_bound(admin: EnvoyAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "LONGEST_SECONDS", 0.3)
    admin.active = 1_000_000
    async with asyncio.timeout(5):
        await drain.drain(admin.url)
    assert admin.active > 0


async def test_an_envoy_that_is_gone_is_no_error() -> None:
    await drain.drain("http://127.0.0.1:1")
