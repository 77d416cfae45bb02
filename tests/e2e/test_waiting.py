"""Requests that wait for room through the whole stack: served in their turn, wherever and however their worker ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.e2e.conftest import key_hash
from tests.e2e.envoy_view import all_serve
from tests.e2e.stack import Stack, idle, running, until

pytestmark = pytest.mark.e2e

Answer = tuple[int, str]  # status and reason
SERVED: Answer = (200, "")

CHAT = "/v1/chat/completions"
HOLD_TOKENS = 150  # of a request that keeps the only slot: 1.5 s at 10 ms a token
CONFIG = f"""
lease_seconds: 6  # of a worker that hangs some entries are lost, and their leases expire
models:
  - name: m
    pools:
      default:
        endpoints: ["sim://?decode_ms=10"]
        max_model_len: 4096
        capacity: {{tokens_per_second: 100000, kv_tokens: 100000, concurrency: 50}}
entitlements:
  - {{name: patient, model: m, class: guaranteed, keys: ["{key_hash("sk-patient")}"], max_wait_ms: 20000,
     tokens_per_second: 10000, kv_tokens: 50000, concurrency: 1}}
  - {{name: hasty, model: m, class: guaranteed, keys: ["{key_hash("sk-hasty")}"], max_wait_ms: 300,
     tokens_per_second: 10000, kv_tokens: 20000, concurrency: 1}}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(CONFIG, tmp_path_factory.mktemp("waiting")) as found:
        yield found


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(stack.base_url.removesuffix("v1"), connector=connector) as session:
        yield session
    await until(lambda: idle(stack.state()) and waiting(stack) == 0)


def waiting(stack: Stack, tenant: str = "patient") -> int:
    return int(stack.state()["models"]["m"]["entitlements"][tenant]["waiting"])


async def ask(
    http: aiohttp.ClientSession, tokens: int, tenant: str = "patient", text: str = "hello"
) -> tuple[int, str]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    async with http.post(CHAT, json=body, headers={"authorization": f"Bearer sk-{tenant}"}) as answer:
        await answer.read()
        return answer.status, answer.headers.get("x-tokenpool-reason", "")


async def holding(stack: Stack, http: aiohttp.ClientSession, tenant: str = "patient") -> asyncio.Task[Answer]:
    """A request that has its tenant's only slot."""
    task = asyncio.create_task(ask(http, HOLD_TOKENS, tenant))
    await until(lambda: stack.state()["models"]["m"]["entitlements"][tenant]["in_use"]["concurrency"] == 1)
    return task


async def queued(stack: Stack, http: aiohttp.ClientSession, count: int) -> list[asyncio.Task[Answer]]:
    """So many requests that wait, on all workers."""
    tasks = [asyncio.create_task(ask(http, 2, text=f"hello {number}")) for number in range(count)]
    await until(lambda: waiting(stack) == count)
    return tasks


async def test_who_waits_is_served_as_soon_as_there_is_room(stack: Stack, http: aiohttp.ClientSession) -> None:
    holds = await holding(stack, http)
    waits = await queued(stack, http, 5)
    assert Counter(await asyncio.gather(holds, *waits)) == {SERVED: 6}


async def test_who_waits_longer_than_he_may_is_refused(stack: Stack, http: aiohttp.ClientSession) -> None:
    holds = await holding(stack, http, "hasty")
    started = time.monotonic()
    assert await ask(http, 2, "hasty") == (429, "concurrency")
    assert time.monotonic() - started > 0.3
    assert not holds.done()
    assert await holds == SERVED


async def test_clients_that_hang_up_leave_the_queue(stack: Stack, http: aiohttp.ClientSession) -> None:
    holds = await holding(stack, http)
    waits = await queued(stack, http, 10)
    for task in waits[:9]:
        task.cancel()
    await until(lambda: waiting(stack) == 1)
    assert not holds.done()  # it was their leaving, not their turn
    assert Counter(await asyncio.gather(*[holds, waits[9]])) == {SERVED: 2}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_who_waits_on_a_worker_that_ends_is_served_by_another(
    stack: Stack, http: aiohttp.ClientSession, number: signal.Signals
) -> None:
    await until(lambda: all_serve(stack))
    holds = await holding(stack, http)
    waits = await queued(stack, http, 10)
    started = time.monotonic()
    os.kill(stack.workers()[0], number)
    assert Counter(await asyncio.gather(holds, *waits)) == {SERVED: 11}
    assert time.monotonic() - started < 15  # in their turn, not at the end of their longest wait


async def test_who_waits_on_a_worker_that_hangs_is_served_by_another(stack: Stack, http: aiohttp.ClientSession) -> None:
    await until(lambda: all_serve(stack))
    [hangs, _] = stack.workers()
    holds = await holding(stack, http)
    waits = await queued(stack, http, 10)
    os.kill(hangs, signal.SIGSTOP)
    try:
        answers = await asyncio.gather(holds, *waits)
    finally:
        os.kill(hangs, signal.SIGCONT)
    assert Counter(answers) == {SERVED: 11}
    more = [await ask(http, 2) for _ in range(10)]  # what the worker does when it wakes harms nobody
    assert Counter(more) == {SERVED: 10}
