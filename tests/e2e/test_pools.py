"""Requests take another pool than their own where that is full or down, never one that might cut them short."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import key_hash
from tests.e2e.stack import Stack, children, idle, running, until

pytestmark = pytest.mark.e2e

KEY = {"authorization": "Bearer sk-tenant"}
CONFIG = f"""
tick_ms: 200
models:
  - name: m
    pools:
      small:
        endpoints: ["sim://?speed=20"]
        max_model_len: 1024
        capacity: {{tokens_per_second: 100000, kv_tokens: 8192, concurrency: 4}}
      medium:
        endpoints: ["sim://?speed=20"]
        max_model_len: 4096
        threshold_tokens: 3072
        capacity: {{tokens_per_second: 100000, kv_tokens: 16384, concurrency: 4}}
      large:
        endpoints: ["sim://?speed=20"]
        max_model_len: 16384
        capacity: {{tokens_per_second: 100000, kv_tokens: 65536, concurrency: 4}}
    routing: {{threshold_tokens: 1024, sigmas: 0}}
entitlements:
  - {{name: tenant, model: m, class: elastic, keys: ["{key_hash("sk-tenant")}"],
     tokens_per_second: 100000, kv_tokens: 80000, concurrency: 12}}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(CONFIG, tmp_path_factory.mktemp("pools"), workers=1) as found:
        yield found


def prompt_of(tokens: int, output: int) -> dict[str, Any]:
    """Token ids: nothing is left to estimate."""
    return {"model": "m", "prompt": [7] * tokens, "max_tokens": output}


async def pool_of(http: aiohttp.ClientSession, body: dict[str, Any]) -> str:
    """The pool that answers; of a refusal its reason."""
    async with http.post("/v1/completions", json=body, headers=KEY) as answer:
        await answer.read()
        return answer.headers["x-tokenpool-pool" if answer.status == 200 else "x-tokenpool-reason"]


def client(stack: Stack) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(stack.base_url.removesuffix("v1"), connector=aiohttp.TCPConnector(limit=0))


async def at_once(stack: Stack, *bodies: dict[str, Any]) -> Counter[str]:
    async with client(stack) as http:
        found = Counter(await asyncio.gather(*(pool_of(http, body) for body in bodies)))
    await until(lambda: idle(stack.state()))
    return found


def simulator_of_length(stack: Stack, max_model_len: int) -> int:
    """Its process."""
    option = f"--max-model-len\0{max_model_len}\0"
    [found] = [pid for pid in children(stack.pid, "sim") if option in Path(f"/proc/{pid}/cmdline").read_text()]
    return found


@pytest.mark.parametrize(
    ("tokens", "pool"),
    [
        pytest.param(1000, "small", id="at its length"),
        pytest.param(1001, "medium", id="above it"),
        pytest.param(3048, "medium", id="at its threshold"),
        pytest.param(3049, "large", id="above it, though it would fit"),
    ],
)
async def test_the_shortest_pool_that_takes_the_budget_serves_it(stack: Stack, tokens: int, pool: str) -> None:
    assert await at_once(stack, prompt_of(tokens, 24)) == {pool: 1}


async def test_what_a_full_pool_has_no_room_for_spills_to_the_next_longer_ones(stack: Stack) -> None:
    before = stack.metric("tokenpool_spilled_total", preferred="small")
    found = await at_once(stack, *[prompt_of(100, 500)] * 12)
    assert found == {"small": 4, "medium": 4, "large": 4}
    assert stack.metric("tokenpool_spilled_total", preferred="small") == before + 8


async def test_a_full_long_pool_spills_to_a_shorter_one_that_holds_the_request(stack: Stack) -> None:
    assert await at_once(stack, *[prompt_of(3200, 500)] * 8) == {"large": 4, "medium": 4}


async def test_nothing_spills_to_a_pool_that_might_cut_it_short(stack: Stack) -> None:
    assert await at_once(stack, *[prompt_of(4000, 500)] * 8) == {"large": 4, "pool_capacity": 4}


async def test_a_pool_whose_servers_do_not_answer_is_passed_over(stack: Stack) -> None:
    simulator = simulator_of_length(stack, 1024)
    os.kill(simulator, signal.SIGSTOP)
    try:
        await until(lambda: stack.state()["models"]["m"]["pools"]["small"]["servers"] == 0)
        assert await at_once(stack, *[prompt_of(100, 8)] * 3) == {"medium": 3}
    finally:
        os.kill(simulator, signal.SIGCONT)
    await until(lambda: stack.state()["models"]["m"]["pools"]["small"]["servers"] == 1)
    assert await at_once(stack, prompt_of(100, 8)) == {"small": 1}


async def test_an_answer_that_its_pool_cut_short_is_a_misroute_and_the_next_goes_elsewhere(stack: Stack) -> None:
    """Its bytes are a token each, and four a token are expected: the small pool has no room for all of the answer."""
    before = stack.metric("tokenpool_misroutes_total", kind="truncated")
    body = {"model": "m", "prompt": "1 " * 450, "max_tokens": 400}
    assert await at_once(stack, body, {**body, "stream": True}) == {"small": 2}
    assert stack.metric("tokenpool_misroutes_total", kind="truncated") == before + 2

    async def goes_elsewhere() -> bool:
        return await at_once(stack, body) == {"medium": 1}

    await until(goes_elsewhere)
