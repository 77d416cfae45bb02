"""Letting Envoy finish what it has before it is stopped, so that what was used is settled."""

from __future__ import annotations

import asyncio

import aiohttp

LONGEST_SECONDS = 5.0  # people wait for this after Ctrl-C
POLL_SECONDS = 0.1


async def drain(envoy_admin: str) -> None:
    """Closes Envoy's listeners and waits for the requests under way, for a bounded time. Never raises."""
    try:
        async with asyncio.timeout(LONGEST_SECONDS), aiohttp.ClientSession() as client:
            async with client.post(f"{envoy_admin}/drain_listeners"):
                pass
            while await active_requests(client, envoy_admin):  # noqa: ASYNC110 - Envoy can only be asked
                await asyncio.sleep(POLL_SECONDS)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return  # it is stopped next, drained or not


async def active_requests(client: aiohttp.ClientSession, envoy_admin: str) -> int:
    """Of all listeners but Envoy's own admin server, where this very question is a request."""
    query = {"format": "json", "filter": r"^http\..*\.downstream_rq_active$"}
    async with client.get(f"{envoy_admin}/stats", params=query) as answer:
        document = await answer.json()
    return sum(
        one["value"] for one in document["stats"] if "name" in one and one["name"] != "http.admin.downstream_rq_active"
    )
