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
from pathlib import Path
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
LOG = "requests.jsonl"


def card(url: str) -> dict[str, Any]:
    with fetched(f"{url}/v1/models") as answer:
        [found] = json.load(answer)["data"]
    return dict(found)


@dataclass(frozen=True)
class Served:
    stack: Stack
    model: str
    short: int  # the most tokens that the short pool takes
    log: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    short, long = card(SHORT)["max_model_len"], card(LONG)["max_model_len"]
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
    folder = tmp_path_factory.mktemp("pools")
    with running(config, folder, 1, "--request-log", str(folder / LOG)) as found:
        yield Served(found, card(SHORT)["id"], short, folder / LOG)


def texts() -> dict[str, str]:
    """Real text of three kinds that every Python has."""
    modules = (inspect, argparse, random, statistics, base_events)
    return {
        "prose": "\n\n".join(topics.topics.values()),
        "code": "\n\n".join(inspect.getsource(module) for module in modules),
        "json": json.dumps([{"topic": name, "text": text.split()[:12]} for name, text in topics.topics.items()] * 3),
    }


async def load(client: openai.AsyncOpenAI, served: Served, count: int, seed: int) -> None:
    """Prompts of about a twentieth to three times of what the short pool takes, a few at a time."""
    draw, kinds, gate = random.Random(seed), texts(), asyncio.Semaphore(AT_ONCE)

    async def ask(text: str) -> None:
        async with gate:
            await client.chat.completions.create(
                model=served.model, messages=[{"role": "user", "content": text}], max_tokens=MAX_TOKENS
            )

    asks = []
    for _ in range(count):
        text = draw.choice(list(kinds.values()))
        size = min(int(3 * served.short * draw.lognormvariate(-0.5, 0.8)), 9 * served.short)
        begin = draw.randrange(max(1, len(text) - size))
        asks.append(ask(text[begin : begin + size]))
    await asyncio.gather(*asks)
    await until(lambda: idle(served.stack.state()))


async def test_requests_of_a_mixed_load_go_to_the_pool_that_their_tokens_need(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=served.stack.base_url, api_key="sk-vllm", max_retries=0) as client:
        await load(client, served, WARM_UP, seed=1)
        await load(client, served, REQUESTS, seed=2)
    await until(lambda: len(served.log.read_text().splitlines()) == WARM_UP + REQUESTS)
    lines = [json.loads(line) for line in served.log.read_text().splitlines()][WARM_UP:]
    found = Counter((line["pool"], line["prompt_tokens"] + MAX_TOKENS <= served.short) for line in lines)
    misrouted = sum(line["misrouted"] or line["truncated"] for line in lines)
    right = (found["short", True] + found["long", False]) / len(lines)
    error = sum(line["prompt_estimate"] for line in lines) / sum(line["prompt_tokens"] for line in lines) - 1
    print(  # noqa: T201 - the figures are what it is for
        f"\n{len(lines)} requests: {found['short', True]} short and {found['long', False]} long where they belong "
        f"({right:.1%}), {found['long', True]} long out of caution, {misrouted} misrouted; "
        f"the prompts' estimates add up to {error:+.2%} of what the servers counted"
    )
    assert found["short", False] == misrouted <= 0.005 * len(lines)
    assert right >= 0.85
    assert abs(error) < 0.02
