"""Many clients at once, some of them rude, and a worker that is killed among them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.e2e.stack import Stack, idle, until

pytestmark = pytest.mark.e2e

KEY = {"authorization": "Bearer sk-wide"}
CHAT = "/v1/chat/completions"
REQUESTS, CLIENTS = 1000, 50


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(stack.base_url.removesuffix("v1"), connector=connector) as session:
        yield session


def body(rng: random.Random, **more: Any) -> dict[str, Any]:
    words = " ".join(rng.choice(["token", "pool", "budget", "tenant"]) for _ in range(rng.randrange(5, 300)))
    return {"model": "m", "messages": [{"role": "user", "content": words}], "max_tokens": rng.randrange(1, 20), **more}


async def whole(http: aiohttp.ClientSession, rng: random.Random) -> str:
    async with http.post(CHAT, json=body(rng), headers=KEY) as answer:
        await answer.read()
        return f"whole {answer.status}"


async def streamed(http: aiohttp.ClientSession, rng: random.Random) -> str:
    async with http.post(CHAT, json=body(rng, stream=True), headers=KEY) as answer:
        text = await answer.text()
        return f"streamed {answer.status} {text.endswith('data: [DONE]' + chr(10) * 2)}"


async def hung_up_on(http: aiohttp.ClientSession, rng: random.Random) -> str:
    """Leaves a stream that would go on for minutes."""
    async with http.post(CHAT, json=body(rng, stream=True, max_tokens=1200), headers=KEY) as answer:
        for _ in range(rng.randrange(4)):
            await answer.content.readline()
        return f"hung up {answer.status}"


async def hung_up_at_once(http: aiohttp.ClientSession, rng: random.Random) -> str:
    """Leaves before an answer has begun, perhaps before the verdict."""
    try:
        async with asyncio.timeout(rng.random() / 50):
            async with http.post(CHAT, json=body(rng, max_tokens=1200), headers=KEY) as answer:
                await answer.read()
    except TimeoutError:
        pass
    return "hung up at once"


async def failed(http: aiohttp.ClientSession, rng: random.Random) -> str:
    fault = rng.choice(["500", "503", "hangup"])
    async with http.post(CHAT, json=body(rng), headers=KEY | {"x-sim-fault": fault}) as answer:
        await answer.read()
        return f"failed {fault} {answer.status}"


async def cut(http: aiohttp.ClientSession, rng: random.Random) -> str:
    try:
        async with http.post(
            CHAT, json=body(rng, stream=True, max_tokens=50), headers=KEY | {"x-sim-fault": "cut:5"}
        ) as a:
            await a.read()
    except aiohttp.ClientPayloadError:
        return "cut"
    return "not cut"


Kind = Callable[[aiohttp.ClientSession, random.Random], Awaitable[str]]
MIX: list[Kind] = [whole, whole, whole, streamed, streamed, streamed, hung_up_on, hung_up_at_once, failed, cut]


@pytest.mark.timeout(300)
async def test_after_a_thousand_mixed_requests_every_counter_is_zero_and_the_sums_agree(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    rng = random.Random(7)
    work = iter([rng.choice(MIX) for _ in range(REQUESTS)])
    counts: Counter[str] = Counter()
    before, told = _settled(stack), stack.totals()
    admitted = stack.metric("tokenpool_verdicts_total", verdict="admit")
    settlements = stack.metric("tokenpool_settlements_total")

    async def client() -> None:
        for kind in work:
            counts[await kind(http, rng)] += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    await until(lambda: idle(stack.state()), 30)
    after, now = _settled(stack), stack.totals()

    assert counts.total() == REQUESTS
    assert {kind for kind in counts if kind.startswith(("whole", "streamed"))} == {"whole 200", "streamed 200 True"}
    # Both the shared totals and the workers' own: nothing was settled twice, nothing not at all.
    by_usage = after["shared"] - before["shared"] - (after["estimated"] - before["estimated"])
    assert (
        by_usage == now["prompt_tokens"] + now["completion_tokens"] - told["prompt_tokens"] - told["completion_tokens"]
    )
    assert after["shared"] - before["shared"] == after["workers"] - before["workers"]
    new_admitted = stack.metric("tokenpool_verdicts_total", verdict="admit") - admitted
    new_settlements = stack.metric("tokenpool_settlements_total") - settlements
    assert new_settlements == new_admitted <= REQUESTS
    assert stack.metric("tokenpool_leases_expired_total") == 0


def _settled(stack: Stack) -> dict[str, float]:
    shared = stack.state()["models"]["m"]["entitlements"]["wide"]["settled"]
    return {
        "shared": shared["prompt"] + shared["completion"],
        "workers": stack.metric("tokenpool_settled_tokens_total", entitlement="wide"),
        "estimated": stack.metric("tokenpool_estimated_tokens_total", entitlement="wide"),
    }


async def test_killing_a_worker_under_fifty_streams_cuts_none_of_them(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    rng, begun = random.Random(3), asyncio.Semaphore(0)

    async def stream() -> bool:
        async with http.post(CHAT, json=body(rng, stream=True, max_tokens=800), headers=KEY) as answer:
            assert answer.status == 200
            await answer.content.readline()
            begun.release()
            return (await answer.text()).endswith("data: [DONE]\n\n")

    streams = [asyncio.create_task(stream()) for _ in range(50)]
    for _ in streams:
        await begun.acquire()
    [victim, *_] = stack.workers()
    os.kill(victim, signal.SIGKILL)
    assert all(await asyncio.gather(*streams))
    await until(lambda: idle(stack.state()))
    await until(lambda: len(stack.workers()) == 2)
    assert victim not in stack.workers()
