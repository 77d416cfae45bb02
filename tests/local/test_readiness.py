from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from extproc.local.readiness import Probes, first_missing, healthy

HEALTHY = {"eds_health_status": "HEALTHY"}


def host(status: Mapping[str, Any]) -> dict[str, Any]:
    return {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 8000}}, "health_status": status}


def clusters(**hosts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"cluster_statuses": [{"name": f"m/{name}", "host_statuses": found} for name, found in hosts.items()]}


@dataclass
class Neighbours:
    """What the sidecar's admin server, Envoy's, and Envoy itself answer; one server plays all three."""

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(
        default_factory=lambda: {
            "/readyz": (200, {}),
            "/ready": (200, "LIVE"),
            "/clusters": (200, clusters(short=[host(HEALTHY)], long=[host(HEALTHY)])),
            "/v1/models": (401, {}),
        }
    )

    async def answer(self, request: web.Request) -> web.Response:
        status, body = self.answers[request.path]
        return web.json_response(body, status=status)

    @property
    def probes(self) -> Probes:
        return Probes(self.url, self.url, self.url, ("m/short", "m/long"))


@pytest_asyncio.fixture
async def neighbours() -> AsyncIterator[Neighbours]:
    played = Neighbours()
    app = web.Application()
    app.router.add_get("/{path:.*}", played.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    played.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield played
    await runner.cleanup()


async def missing(probes: Probes) -> str:
    async with aiohttp.ClientSession() as client:
        return await first_missing(client, probes)


async def test_nothing_is_missing_where_all_answer(neighbours: Neighbours) -> None:
    assert await missing(neighbours.probes) == ""


@pytest.mark.parametrize(
    ("path", "status", "body", "expected"),
    [
        ("/readyz", 503, {"reasons": ["no Redis"]}, "the sidecar is not ready: .*no Redis"),
        ("/ready", 503, "PRE_INITIALIZING", "Envoy is not ready: .*PRE_INIT"),
        ("/clusters", 200, clusters(short=[host(HEALTHY)]), r"no healthy server in m/long \(none configured\)"),
        ("/clusters", 200, clusters(short=[host({})], long=[]), r"no healthy server in m/short \(10.0.0.1:8000\)"),
        ("/v1/models", 503, "no healthy upstream", "Envoy answers 503 where the sidecar would answer 401"),
        ("/v1/models", 200, {}, "Envoy answers 200"),
    ],
    ids=["sidecar", "envoy", "no servers", "unhealthy", "no sidecar in envoy", "no authentication"],
)
async def test_what_is_missing_is_named(
    neighbours: Neighbours, path: str, status: int, body: object, expected: str
) -> None:
    neighbours.answers[path] = (status, body)
    assert re.search(expected, await missing(neighbours.probes))


async def test_one_healthy_server_of_a_pool_is_enough(neighbours: Neighbours) -> None:
    pools = clusters(short=[host({"failed_active_health_check": True}), host(HEALTHY)], long=[host(HEALTHY)])
    neighbours.answers["/clusters"] = (200, pools)
    assert await missing(neighbours.probes) == ""


async def test_where_nobody_listens_yet_the_sidecar_is_missing() -> None:
    nowhere = "http://127.0.0.1:1"
    assert "127.0.0.1" in await missing(Probes(nowhere, nowhere, nowhere, ()))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (HEALTHY, True),
        ({**HEALTHY, "failed_active_health_check": False}, True),
        ({**HEALTHY, "failed_active_health_check": True}, False),
        ({**HEALTHY, "failed_active_health_check": True, "pending_active_hc": True}, False),
        ({"eds_health_status": "UNHEALTHY"}, False),
        ({}, False),
    ],
)
def test_a_host_is_healthy_as_envoy_says(status: Mapping[str, Any], expected: bool) -> None:
    assert healthy(host(status)) is expected
