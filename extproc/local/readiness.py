"""Whether a request would succeed: the sidecar says so, and Envoy answers with the sidecar and servers behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

POLL_SECONDS = 0.1
ANSWER_SECONDS = 2.0
PATIENCE_SECONDS = 10.0  # then the user is told what is missing


@dataclass(frozen=True, slots=True)
class Probes:
    """Where to ask."""

    admin: str  # the sidecar's admin server, such as http://127.0.0.1:9464
    envoy_admin: str
    edge: str  # what clients talk to
    clusters: tuple[str, ...]  # Envoy's name of each pool


async def ready(probes: Probes, tell: Callable[[str], None]) -> None:
    """Returns when a request would succeed. Waits for ever; what is missing is told once it has been long."""
    clock = asyncio.get_running_loop()
    begun, told = clock.time(), ""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        while missing := await first_missing(client, probes):
            if clock.time() - begun > PATIENCE_SECONDS and missing != told:
                tell(f"waiting: {missing}")
                told = missing
            await asyncio.sleep(POLL_SECONDS)


async def first_missing(client: aiohttp.ClientSession, probes: Probes) -> str:
    """What a request would fail for; "" where it would succeed."""
    for check in (sidecar_missing, envoy_missing, servers_missing, edge_missing):
        missing = await answered(check, client, probes)
        if missing:
            return missing
    return ""


Check = Callable[[aiohttp.ClientSession, Probes], Awaitable[str]]


async def answered(check: Check, client: aiohttp.ClientSession, probes: Probes) -> str:
    try:
        return await check(client, probes)
    except (aiohttp.ClientError, TimeoutError) as error:
        return str(error) or f"{check.__name__.removesuffix('_missing')} does not answer"


async def sidecar_missing(client: aiohttp.ClientSession, probes: Probes) -> str:
    async with client.get(f"{probes.admin}/readyz") as answer:
        return "" if answer.status == HTTPStatus.OK else f"the sidecar is not ready: {(await answer.text()).strip()}"


async def envoy_missing(client: aiohttp.ClientSession, probes: Probes) -> str:
    async with client.get(f"{probes.envoy_admin}/ready") as answer:
        return "" if answer.status == HTTPStatus.OK else f"Envoy is not ready: {(await answer.text()).strip()}"


async def servers_missing(client: aiohttp.ClientSession, probes: Probes) -> str:
    async with client.get(f"{probes.envoy_admin}/clusters?format=json") as answer:
        document = await answer.json()
    for name, hosts in servers(document, probes.clusters).items():
        if not any(healthy(host) for host in hosts):
            return f"no healthy server in {name} ({', '.join(map(address, hosts)) or 'none configured'})"
    return ""


async def edge_missing(client: aiohttp.ClientSession, probes: Probes) -> str:
    """A request without a key is refused by the sidecar, so a 401 says that Envoy reaches it."""
    async with client.get(f"{probes.edge}/v1/models") as answer:
        if answer.status == HTTPStatus.UNAUTHORIZED:
            return ""
        return f"Envoy answers {answer.status} where the sidecar would answer 401: {(await answer.text()).strip()}"


def servers(document: Mapping[str, Any], clusters: Sequence[str]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The hosts of each named cluster, from Envoy's /clusters?format=json."""
    found = {one["name"]: one.get("host_statuses", ()) for one in document.get("cluster_statuses", ())}
    return {name: found.get(name, ()) for name in clusters}


def healthy(host: Mapping[str, Any]) -> bool:
    """As Envoy's HostHealthStatus says: any failed_... flag means unhealthy."""
    status = host.get("health_status", {})
    return status.get("eds_health_status") == "HEALTHY" and not any(
        flag.startswith(("failed_", "pending_")) and on for flag, on in status.items()
    )


def address(host: Mapping[str, Any]) -> str:
    socket = host.get("address", {}).get("socket_address", {})
    return f"{socket.get('address', '?')}:{socket.get('port_value', '?')}"
