"""Parts of the stack killed, frozen or asked to stop, under load; each test has a stack of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import CONFIG
from tests.e2e.stack import Stack, children, idle, running, until

pytestmark = pytest.mark.e2e

KEY = {"authorization": "Bearer sk-wide"}
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
CHAT = "/v1/chat/completions"


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], AbstractContextManager[Stack]]:
    return lambda config: running(config, tmp_path)


def client(stack: Stack) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(stack.base_url.removesuffix("v1"), connector=aiohttp.TCPConnector(limit=0))


async def answers(
    http: aiohttp.ClientSession, count: int, meanwhile: Iterator[object] | None = None
) -> Counter[tuple[int, str]]:
    """Statuses and reasons of so many requests, sent steadily; between them, what else is to happen."""

    async def ask() -> tuple[int, str]:
        async with http.post(CHAT, json=BODY, headers=KEY) as answer:
            await answer.read()
            return answer.status, answer.headers.get("x-tokenpool-reason", "")

    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(ask()))
        if meanwhile is not None and number == count // 4:
            next(meanwhile)
        await asyncio.sleep(0.01)
    return Counter(await asyncio.gather(*tasks))


def valkeys(stack: Stack) -> list[int]:
    return [pid for pid in children(stack.pid) if "valkey-server" in Path(f"/proc/{pid}/comm").read_text()]


def sending(number: signal.Signals, pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, number)
    yield


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_that_ends_under_load_fails_no_request(
    own: Callable[[str], AbstractContextManager[Stack]], number: signal.Signals
) -> None:
    with own(CONFIG) as stack:
        async with client(stack) as http:
            assert await answers(http, 300, sending(number, stack.workers()[:1])) == {(200, ""): 300}


async def test_with_every_sidecar_dead_clients_get_a_clear_503(
    own: Callable[[str], AbstractContextManager[Stack]],
) -> None:
    with own(CONFIG) as stack:
        [supervisor] = children(stack.pid, "serve")
        os.kill(supervisor, signal.SIGSTOP)  # so that it starts none again
        for worker in stack.workers():
            os.kill(worker, signal.SIGKILL)
        async with client(stack) as http, http.post(CHAT, json=BODY, headers=KEY) as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["type"] == "api_error"
        os.kill(supervisor, signal.SIGCONT)


async def test_a_dead_short_server_is_replaced_by_the_long_one(
    own: Callable[[str], AbstractContextManager[Stack]],
) -> None:
    config = CONFIG.replace('"sim://?speed=20&faults=true&max_model_len=1500"', "http://127.0.0.1:9")  # nobody listens
    with own(config) as stack:
        async with client(stack) as http:
            assert await answers(http, 20) == {(200, ""): 20}
        await until(lambda: idle(stack.state()))


async def test_a_request_longer_than_its_lease_keeps_it(own: Callable[[str], AbstractContextManager[Stack]]) -> None:
    """Envoy renews a lease of six seconds once a second; the stream takes about eight."""
    config = "lease_seconds: 6\n" + CONFIG.replace("speed=20&faults=true&max", "decode_ms=8&faults=true&max")
    with own(config) as stack:
        async with client(stack) as http:
            body = BODY | {"stream": True, "max_tokens": 1000}
            async with http.post(CHAT, json=body, headers=KEY) as answer:
                assert (await answer.text()).endswith("data: [DONE]\n\n")
        await until(lambda: idle(stack.state()))
        settled = stack.state()["models"]["m"]["entitlements"]["wide"]["settled"]
        assert settled["completion"] == 1000
        assert stack.metric("tokenpool_leases_expired_total") == 0


async def test_a_frozen_worker_holds_back_no_settlement_for_long(
    own: Callable[[str], AbstractContextManager[Stack]],
) -> None:
    """What Envoy sent it before it noticed is lost, and those leases expire; all later ones settle elsewhere."""
    with own("lease_seconds: 6\n" + CONFIG) as stack:
        [frozen, *_] = stack.workers()
        async with client(stack) as http:
            assert await answers(http, 40) == {(200, ""): 40}
            os.kill(frozen, signal.SIGSTOP)
            await answers(http, 150)
            await until(lambda: idle(stack.state()))
            expired = stack.metric("tokenpool_leases_expired_total")
            assert await answers(http, 100) == {(200, ""): 100}
            await until(lambda: idle(stack.state()))
            assert stack.metric("tokenpool_leases_expired_total") == expired
            os.kill(frozen, signal.SIGCONT)


async def test_a_worker_that_restarts_keeps_to_the_policy_of_the_others(
    own: Callable[[str], AbstractContextManager[Stack]], tmp_path: Path
) -> None:
    with own(CONFIG) as stack:
        (tmp_path / "tokenpool.yaml").write_text("no-such-key: 1")
        before = stack.workers()
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        await until(lambda: not set(before) & set(stack.workers()) and len(stack.workers()) == 2)
        async with client(stack) as http:

            async def served() -> bool:
                async with http.post(CHAT, json=BODY, headers=KEY) as answer:
                    return answer.status == 200

            await until(served)


async def test_a_frozen_redis_is_a_quick_503_and_leaves_nothing_behind(
    own: Callable[[str], AbstractContextManager[Stack]],
) -> None:
    with own(CONFIG) as stack:
        [valkey] = valkeys(stack)
        async with client(stack) as http:
            assert await answers(http, 20) == {(200, ""): 20}
            os.kill(valkey, signal.SIGSTOP)
            found = await answers(http, 50)
            os.kill(valkey, signal.SIGCONT)
            assert found == {(503, "ledger_unavailable"): 50}
            await until(lambda: idle(stack.state()))
            assert await answers(http, 20) == {(200, ""): 20}
        await until(lambda: idle(stack.state()))
