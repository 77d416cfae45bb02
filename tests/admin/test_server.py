from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from extproc.admin import Admin, start_admin
from extproc.ledger import LedgerUnavailable

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@dataclass
class Process:
    """An owner whose answers a test sets."""

    document: dict[str, Any] | None = field(default_factory=lambda: {"models": {}, "degraded": False})
    reasons: tuple[str, ...] = ()
    scraped: list[Mapping[str, Any] | None] = field(default_factory=list)
    collector: Collector = field(default_factory=CollectorRegistry)

    async def state(self) -> dict[str, Any]:
        if self.document is None:
            raise LedgerUnavailable
        return self.document

    async def unready(self) -> tuple[str, ...]:
        return self.reasons

    def metrics(self, state: Mapping[str, Any] | None) -> Collector:
        self.scraped.append(state)
        return self.collector


@pytest.fixture
def owner() -> Process:
    registry = CollectorRegistry()
    Counter("things_total", "Things.", registry=registry).inc(3)
    return Process(collector=registry)


@pytest.fixture
async def admin(owner: Process) -> AsyncIterator[Admin]:
    admin = await start_admin(owner)
    yield admin
    await admin.close()


@pytest.fixture
async def http(admin: Admin) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as session:
        yield session


async def test_a_living_process_is_healthy(http: aiohttp.ClientSession) -> None:
    async with http.get("/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})


async def test_a_process_without_reasons_is_ready(http: aiohttp.ClientSession) -> None:
    async with http.get("/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ready", "reasons": []})


async def test_an_unready_process_says_why(http: aiohttp.ClientSession, owner: Process) -> None:
    owner.reasons = ("redis cannot be reached", "no worker serves")
    async with http.get("/readyz") as answer:
        assert answer.status == 503
        assert await answer.json() == {"status": "unready", "reasons": ["redis cannot be reached", "no worker serves"]}


async def test_state_is_the_owners_document(http: aiohttp.ClientSession, owner: Process) -> None:
    async with http.get("/api/v1/state") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == owner.document


async def test_state_is_503_where_the_ledger_cannot_be_reached(http: aiohttp.ClientSession, owner: Process) -> None:
    owner.document = None
    async with http.get("/api/v1/state") as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["message"] == "the shared state cannot be reached"


@pytest.mark.parametrize(
    ("accept", "content_type", "end"),
    [
        pytest.param("*/*", "text/plain; version=0.0.4; charset=utf-8", "things_total 3.0\n", id="text"),
        pytest.param(OPENMETRICS, "application/openmetrics-text; version=1.0.0", "# EOF\n", id="openmetrics"),
    ],
)
async def test_metrics_come_in_the_format_asked_for(
    http: aiohttp.ClientSession, accept: str, content_type: str, end: str
) -> None:
    async with http.get("/metrics", headers={"accept": accept}) as answer:
        text = await answer.text()
    assert answer.headers["content-type"].startswith(content_type)
    assert "things_total 3.0\n" in text
    assert accept == "*/*" or text.endswith(end)


async def test_metrics_are_compressed_for_those_who_ask(admin: Admin) -> None:
    url = f"http://127.0.0.1:{admin.port}/metrics"
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(url, headers={"accept-encoding": "gzip"}) as answer,
    ):
        assert answer.headers["content-encoding"] == "gzip"
        assert (await answer.read()).startswith(b"\x1f\x8b")


async def test_a_scrape_sees_the_same_state_as_the_api(http: aiohttp.ClientSession, owner: Process) -> None:
    async with http.get("/metrics"):
        assert owner.scraped == [owner.document]


async def test_metrics_are_there_where_the_ledger_is_not(http: aiohttp.ClientSession, owner: Process) -> None:
    owner.document = None
    async with http.get("/metrics") as answer:
        assert answer.status == 200
        assert owner.scraped == [None]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("POST", "/healthz", 405)])
async def test_errors_are_json(http: aiohttp.ClientSession, method: str, path: str, status: int) -> None:
    async with http.request(method, path) as answer:
        assert (answer.status, answer.content_type) == (status, "application/json")
        assert (await answer.json())["error"]["status"] == status


async def test_a_slow_scrape_does_not_hold_up_health(http: aiohttp.ClientSession, owner: Process) -> None:
    healthy = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow(Collector):
        def collect(self) -> list[GaugeMetricFamily]:
            asyncio.run_coroutine_threadsafe(healthy.wait(), loop).result(timeout=10)
            return []

    owner.collector = Slow()
    async with asyncio.TaskGroup() as tasks:
        scrape = tasks.create_task(_status(http, "/metrics"))
        assert await _status(http, "/healthz") == 200
        healthy.set()
    assert scrape.result() == 200


async def _status(http: aiohttp.ClientSession, path: str) -> int:
    async with http.get(path) as answer:
        return answer.status


async def test_a_taken_port_is_the_callers_to_explain(owner: Process) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="address already in use"):
        await start_admin(owner, port=taken.getsockname()[1])


async def test_it_listens_on_loopback_only_unless_told_otherwise(admin: Admin) -> None:
    assert [address[0] for address in admin.runner.addresses] == ["127.0.0.1"]


async def test_a_closed_server_frees_its_port(owner: Process) -> None:
    admin = await start_admin(owner)
    await admin.close()
    with socket.create_server(("127.0.0.1", admin.port)):
        pass
