"""Borrowed room through the whole stack: taken back at once by whom it is promised to, at the server too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import key_hash
from tests.e2e.envoy_view import all_serve
from tests.e2e.stack import Stack, fetched, idle, running, until

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
SLOTS = 4
LONG_TOKENS = 1000  # ten seconds at 10 ms a token
SOON_SECONDS = 1.0  # many times what it takes, as a busy machine may need
CONFIG = f"""
lease_seconds: 6
models:
  - name: m
    sharing: {{headroom_requests: 0}}
    pools:
      default:
        endpoints: ["sim://?decode_ms=10&max_num_seqs={2 * SLOTS}"]
        max_model_len: 4096
        capacity: {{tokens_per_second: 100000, kv_tokens: 100000, concurrency: {SLOTS}}}
entitlements:
  - {{name: owner, model: m, class: guaranteed, keys: ["{key_hash("sk-owner")}"],
     tokens_per_second: 10000, kv_tokens: 50000, concurrency: 2}}
  - {{name: borrower, model: m, class: preemptible, keys: ["{key_hash("sk-borrower")}"],
     tokens_per_second: 50000, kv_tokens: 50000, concurrency: {SLOTS}}}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(CONFIG, tmp_path_factory.mktemp("preemption")) as found:
        yield found


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(stack.base_url.removesuffix("v1"), connector=connector) as session:
        yield session
    await until(lambda: idle(stack.state()) and all_serve(stack))


class Borrower:
    """A streamed request on borrowed room: whether and when it was cut."""

    def __init__(self, http: aiohttp.ClientSession, tokens: int = LONG_TOKENS) -> None:
        self.begun = asyncio.Event()
        self.ended_at = 0.0
        self.whole = False
        self.task = asyncio.create_task(self._run(http, tokens))

    async def _run(self, http: aiohttp.ClientSession, tokens: int) -> None:
        try:
            async with http.post(CHAT, json=body(tokens, stream=True), headers=key("borrower")) as answer:
                assert answer.status == 200, await answer.text()
                await answer.content.readline()
                self.begun.set()
                self.whole = (await answer.text()).endswith("data: [DONE]\n\n")
        except aiohttp.ClientPayloadError:
            pass
        finally:
            self.ended_at = time.monotonic()

    async def until_begun(self) -> None:
        begun = asyncio.create_task(self.begun.wait())
        await asyncio.wait((self.task, begun), return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()

    @property
    def cut(self) -> bool:
        return self.task.done() and not self.whole

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,))


def body(tokens: int, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens, **more}


def key(tenant: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{tenant}"}


async def ask(http: aiohttp.ClientSession, tenant: str, tokens: int = 3) -> tuple[int, str]:
    async with http.post(CHAT, json=body(tokens), headers=key(tenant)) as answer:
        await answer.read()
        return answer.status, answer.headers.get("x-tokenpool-reason", "")


async def borrowers(http: aiohttp.ClientSession, count: int = SLOTS, tokens: int = LONG_TOKENS) -> list[Borrower]:
    """One after the other, each on a slot of the pool: the last is the youngest."""
    found = []
    for _ in range(count):
        found.append(Borrower(http, tokens))
        await found[-1].until_begun()
    return found


def served(stack: Stack) -> dict[str, int]:
    """What the server counted: requests, finished, aborted."""
    [url] = stack.simulators("default")
    with fetched(f"{url}/sim/totals") as answer:
        return dict(json.load(answer))


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_an_owner_gets_its_room_at_once_and_the_youngest_borrower_ends(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    before, counted = served(stack), stack.metric("tokenpool_preempted_total", entitlement="borrower")
    running = await borrowers(http)
    claimed = time.monotonic()
    owner = asyncio.create_task(ask(http, "owner", 50))
    await until(lambda: served(stack)["aborted"] == before["aborted"] + 1)
    assert time.monotonic() - claimed < SOON_SECONDS  # at the server: it generates no more for nobody
    await running[-1].task
    assert running[-1].ended_at - claimed < SOON_SECONDS
    assert [one.cut for one in running] == [False] * (SLOTS - 1) + [True]
    assert await owner == (200, "")
    assert stack.metric("tokenpool_preempted_total", entitlement="borrower") == counted + 1
    for one in running:
        await one.leave()


async def test_who_has_no_answer_yet_is_told_that_its_room_was_claimed(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    others = await borrowers(http, SLOTS - 1)
    waits = asyncio.create_task(ask(http, "borrower", LONG_TOKENS))
    await until(lambda: stack.state()["models"]["m"]["leases"] == SLOTS)
    assert await ask(http, "owner") == (200, "")
    assert await waits == (429, "preempted")
    for one in others:
        assert not one.task.done()
        await one.leave()


async def test_it_is_charged_for_what_it_got(stack: Stack, http: aiohttp.ClientSession) -> None:
    def charged() -> int:
        settled = stack.state()["models"]["m"]["entitlements"]["borrower"]["settled"]
        return int(settled["prompt"] + settled["completion"])

    before = charged()
    running = await borrowers(http)
    assert await ask(http, "owner") == (200, "")
    await until(lambda: stack.state()["models"]["m"]["leases"] == SLOTS - 1)
    assert 0 < charged() - before < LONG_TOKENS / 2
    for one in running:
        await one.leave()


async def test_no_request_of_an_owner_is_refused_under_a_flood(http: aiohttp.ClientSession) -> None:
    over = asyncio.Event()

    async def flood() -> None:
        while not over.is_set():
            try:
                await ask(http, "borrower", 30)
            except aiohttp.ClientPayloadError:
                continue

    floods = [asyncio.create_task(flood()) for _ in range(2 * SLOTS)]
    owners = [await ask(http, "owner") for _ in range(40)]
    over.set()
    await asyncio.gather(*floods)
    assert owners == [(200, "")] * 40


async def test_a_worker_that_is_asked_to_stop_cuts_no_borrower(stack: Stack, http: aiohttp.ClientSession) -> None:
    running = await borrowers(http, tokens=200)  # two seconds: longer than the worker takes
    os.kill(stack.workers()[0], signal.SIGTERM)
    await asyncio.gather(*(one.task for one in running))
    assert [one.whole for one in running] == [True] * SLOTS


async def test_a_worker_that_is_killed_leaves_no_borrower_behind(stack: Stack, http: aiohttp.ClientSession) -> None:
    """Its borrowers end with it, since nobody could end them any more; those of the other go on."""
    running = await borrowers(http)
    victim = stack.workers()[0]
    os.kill(victim, signal.SIGKILL)
    await until(lambda: victim not in stack.workers() and all_serve(stack))
    for _ in range(2):
        assert await ask(http, "owner") == (200, "")
    for one in running:
        await one.leave()


async def test_a_worker_that_hangs_keeps_no_owner_from_its_room(stack: Stack, http: aiohttp.ClientSession) -> None:
    """Its borrowers run on until Envoy closes its connections; what else it was sent meanwhile fails, or is lost."""
    running = await borrowers(http)
    with frozen(stack.workers()[0]):
        answers = [await ask(http, "owner") for _ in range(6)]
        await until(lambda: any(one.cut for one in running))
    assert (200, "") in answers
    for one in running:
        await one.leave()
