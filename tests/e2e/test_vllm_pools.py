"""Two pools of real vLLM servers under a mixed load: `make test-vllm URL=... LONG_URL=...`; `-s` shows the figures."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import random
import statistics
from asyncio import base_events
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pydoc_data import topics
from typing import Any

import openai
import pytest

from tests.e2e.conftest import key_hash
from tests.e2e.stack import Stack, fetched, idle, running, until

SHORT, LONG = os.environ.get("TOKENPOOL_VLLM_URL", ""), os.environ.get("TOKENPOOL_VLLM_LONG_URL", "")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (SHORT and LONG), reason="TOKENPOOL_VLLM_URL and TOKENPOOL_VLLM_LONG_URL name no servers"),
]
WARM_UP, REQUESTS, AT_ONCE = 120, 480, 4
MAX_TOKENS = 8


@dataclass(frozen=True)
class Seen:
    kind: str
    pool: str
    tokens: int  # of prompt and answer, as the server counted
    prompt_tokens: int
    fits: bool


def card(url: str) -> dict[str, Any]:
    with fetched(f"{url}/v1/models") as answer:
        [found] = json.load(answer)["data"]
    return dict(found)


@pytest.fixture(scope="module")
def lengths() -> tuple[int, int]:
    return card(SHORT)["max_model_len"], card(LONG)["max_model_len"]


@pytest.fixture(scope="module")
def stack(lengths: tuple[int, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    short, long = lengths
    config = f"""
    redis_timeout_ms: 2000     # the model servers leave little of a small machine
    models:
      - name: {card(SHORT)["id"]}
        pools:
          short:
            endpoints: ["{SHORT}"]
            max_model_len: {short}
            capacity: {{tokens_per_second: 100000, kv_tokens: 1000000, concurrency: 64}}
          long:
            endpoints: ["{LONG}"]
            max_model_len: {long}
            capacity: {{tokens_per_second: 100000, kv_tokens: 1000000, concurrency: 64}}
        routing: {{threshold_tokens: {short}}}
    entitlements:
      - {{name: tenant, model: {card(SHORT)["id"]}, class: guaranteed, keys: ["{key_hash("sk-vllm")}"],
         tokens_per_second: 90000, kv_tokens: 900000, concurrency: 64}}
    """
    with running(config, tmp_path_factory.mktemp("pools"), workers=1) as found:
        yield found


def texts() -> dict[str, str]:
    """Real text of three kinds that every Python has."""
    modules = (inspect, argparse, random, statistics, base_events)
    return {
        "prose": "\n\n".join(topics.topics.values()),
        "code": "\n\n".join(inspect.getsource(module) for module in modules),
        "json": json.dumps([{"topic": name, "text": text.split()[:12]} for name, text in topics.topics.items()] * 3),
    }


async def load(client: openai.AsyncOpenAI, model: str, count: int, short: int, seed: int) -> list[Seen]:
    """Prompts of about a twentieth to three times of what the short pool takes, a few at a time."""
    draw, kinds, gate = random.Random(seed), texts(), asyncio.Semaphore(AT_ONCE)

    async def ask(kind: str, text: str) -> Seen:
        async with gate:
            answer = await client.chat.completions.with_raw_response.create(
                model=model, messages=[{"role": "user", "content": text}], max_tokens=MAX_TOKENS
            )
        usage = answer.parse().usage
        assert usage is not None
        tokens = usage.prompt_tokens + MAX_TOKENS
        return Seen(kind, answer.headers["x-tokenpool-pool"], tokens, usage.prompt_tokens, tokens <= short)

    asks = []
    for _ in range(count):
        kind = draw.choice(list(kinds))
        size = int(3 * short * draw.lognormvariate(-0.5, 0.8))
        begin = draw.randrange(max(1, len(kinds[kind]) - size))
        asks.append(ask(kind, kinds[kind][begin : begin + min(size, 9 * short)]))
    return list(await asyncio.gather(*asks))


def error_sums(stack: Stack) -> tuple[float, float]:
    name = "tokenpool_estimate_error_ratio"
    return stack.metric(f"{name}_sum"), stack.metric(f"{name}_count")


async def test_requests_of_a_mixed_load_go_to_the_pool_that_their_tokens_need(
    stack: Stack, lengths: tuple[int, int]
) -> None:
    model = card(SHORT)["id"]
    async with openai.AsyncOpenAI(base_url=stack.base_url, api_key="sk-vllm", max_retries=0) as client:
        await load(client, model, WARM_UP, lengths[0], seed=1)
        await until(lambda: idle(stack.state()))
        before, misroutes = error_sums(stack), stack.metric("tokenpool_misroutes_total")
        seen = await load(client, model, REQUESTS, lengths[0], seed=2)
    await until(lambda: idle(stack.state()))
    after = error_sums(stack)
    found = Counter((one.pool, one.fits) for one in seen)
    right = (found["short", True] + found["long", False]) / len(seen)
    error = (after[0] - before[0]) / (after[1] - before[1])
    misrouted = stack.metric("tokenpool_misroutes_total") - misroutes
    print(  # noqa: T201 - the figures are what it is for
        f"\n{len(seen)} requests: {found['short', True]} short and {found['long', False]} long where they belong "
        f"({right:.1%}), {found['long', True]} long out of caution, {misrouted:.0f} misrouted; "
        f"mean |error| of the prompt estimate {error:.2%}"
    )
    assert found["short", False] == misrouted
    assert misrouted / len(seen) <= 0.005
    assert right >= 0.95
    assert error < 0.05
