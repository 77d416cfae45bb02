"""The same path with a real vLLM server behind it: `make test-vllm URL=http://127.0.0.1:8000`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import openai
import pytest

from tests.e2e.conftest import key_hash
from tests.e2e.stack import Stack, fetched, idle, running, until

URL = os.environ.get("TOKENPOOL_VLLM_URL", "")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.vllm,
    pytest.mark.skipif(not URL, reason="TOKENPOOL_VLLM_URL names no server"),
]
TEXT = "The quick brown fox jumps over the lazy dog, and the dog, being lazy, does not so much as lift its head. "


@dataclass(frozen=True)
class Served:
    stack: Stack
    model: str
    max_model_len: int

    def settled(self) -> dict[str, int]:
        return dict(self.stack.state()["models"][self.model]["entitlements"]["tenant"]["settled"])

    def own_count(self, name: str) -> float:
        """A counter of vLLM's own."""
        with fetched(f"{URL}/metrics") as answer:
            found = re.findall(rf"^vllm:{name}_total(?:\{{.*\}})? (\S+)$", answer.read().decode(), re.MULTILINE)
        return sum(map(float, found))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with fetched(f"{URL}/v1/models") as answer:
        [card] = json.load(answer)["data"]
    config = f"""
    models:
      - name: {card["id"]}
        pools:
          default:
            endpoints: ["{URL}"]
            max_model_len: {card["max_model_len"]}
            capacity: {{tokens_per_second: 100000, kv_tokens: 100000, concurrency: 64}}
    entitlements:
      - {{name: tenant, model: {card["id"]}, class: guaranteed, keys: ["{key_hash("sk-vllm")}"],
         tokens_per_second: 50000, kv_tokens: 100000, concurrency: 64}}
    """
    with running(config, tmp_path_factory.mktemp("vllm"), workers=1) as stack:
        yield Served(stack, card["id"], card["max_model_len"])


@pytest.fixture
async def client(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=served.stack.base_url, api_key="sk-vllm", max_retries=0) as found:
        yield found


def error_sum(stack: Stack) -> tuple[float, float]:
    name = "tokenpool_estimate_error_ratio"
    return stack.metric(f"{name}_sum"), stack.metric(f"{name}_count")


async def test_the_estimate_learns_from_usage(served: Served, client: openai.AsyncOpenAI) -> None:
    """The last ten of fifty prompts are estimated within 5 %, better than the first ten."""
    sums = [error_sum(served.stack)]
    for turn in range(50):
        words = TEXT * (4 + turn % 3)
        await client.chat.completions.create(
            model=served.model, messages=[{"role": "user", "content": words}], max_tokens=4
        )
        if turn in (9, 39, 49):
            await until(lambda: idle(served.stack.state()))
            sums.append(error_sum(served.stack))
    (s0, n0), (s1, n1), (s2, n2), (s3, n3) = sums
    first, last = (s1 - s0) / (n1 - n0), (s3 - s2) / (n3 - n2)
    assert last < 0.05
    assert last < first


async def test_metrics_agree_with_the_servers_own(served: Served, client: openai.AsyncOpenAI) -> None:
    before, prompt, completion = (
        served.settled(),
        served.own_count("prompt_tokens"),
        served.own_count("generation_tokens"),
    )
    for stream in (False, True):
        answer = await client.chat.completions.create(
            model=served.model, messages=[{"role": "user", "content": TEXT}], max_tokens=20, stream=stream
        )
        if isinstance(answer, openai.AsyncStream):
            events = [event async for event in answer]
            assert all(event.usage is None and event.choices for event in events)
    await until(lambda: idle(served.stack.state()))
    await until(lambda: served.own_count("generation_tokens") - completion == 40)
    after = served.settled()
    assert after["prompt"] - before["prompt"] == served.own_count("prompt_tokens") - prompt
    assert after["completion"] - before["completion"] == 40


async def test_a_client_that_leaves_is_settled_by_rule(served: Served, client: openai.AsyncOpenAI) -> None:
    before = served.stack.metric("tokenpool_settlements_total", source="estimated")
    stream = await client.chat.completions.create(
        model=served.model, messages=[{"role": "user", "content": TEXT}], max_tokens=1000, stream=True
    )
    async for _ in stream:
        break
    await stream.close()
    await until(lambda: idle(served.stack.state()))
    assert served.stack.metric("tokenpool_settlements_total", source="estimated") == before + 1


async def test_what_no_pool_can_hold_is_refused_before_the_server_sees_it(
    served: Served, client: openai.AsyncOpenAI
) -> None:
    before = served.own_count("request_success")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(model=served.model, prompt="x", max_tokens=served.max_model_len + 1)
    assert refused.value.code == "context_length_exceeded"
    assert served.own_count("request_success") == before
