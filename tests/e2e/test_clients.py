"""What an unchanged client sees: OpenAI's own, and plain HTTP."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest

from tests.e2e.stack import Stack, idle, until

pytestmark = pytest.mark.e2e

HELLO: Any = [{"role": "user", "content": "Say something about token pools."}]


@pytest.fixture
async def wide(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=stack.base_url, api_key="sk-wide", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(stack.base_url.removesuffix("v1"), connector=connector) as session:
        yield session


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_a_chat_completion(wide: openai.AsyncOpenAI) -> None:
    answer = await wide.chat.completions.create(model="m", messages=HELLO, max_tokens=7)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7


async def test_a_stream_shows_no_usage_event_that_nobody_asked_for(wide: openai.AsyncOpenAI) -> None:
    events = [e async for e in await wide.chat.completions.create(model="m", messages=HELLO, max_tokens=7, stream=True)]
    assert "".join(e.choices[0].delta.content or "" for e in events)
    assert all(e.usage is None and e.choices for e in events)


async def test_a_stream_shows_the_usage_event_that_was_asked_for(wide: openai.AsyncOpenAI) -> None:
    stream = await wide.chat.completions.create(
        model="m", messages=HELLO, max_tokens=7, stream=True, stream_options={"include_usage": True}
    )
    last = [event async for event in stream][-1]
    assert last.usage is not None
    assert last.usage.completion_tokens == 7


async def test_over_the_limit_is_a_rate_limit_error_whose_retry_after_is_true(stack: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=stack.base_url, api_key="sk-slow", max_retries=0) as client:

        async def ask() -> None:
            await client.chat.completions.create(model="m", messages=HELLO, max_tokens=300)

        await ask()
        with pytest.raises(openai.RateLimitError) as refused:
            await ask()
        headers = refused.value.response.headers
        assert headers["x-tokenpool-reason"] == "tokens_per_second"
        assert 0 < int(headers["retry-after-ms"]) <= int(headers["retry-after"]) * 1000
        await asyncio.sleep(int(headers["retry-after-ms"]) / 1000)  # the promise is about real time
        await ask()


async def test_admitted_answers_carry_the_limits(http: aiohttp.ClientSession) -> None:
    body = {"model": "m", "messages": HELLO, "max_tokens": 3}
    async with http.post("/v1/chat/completions", json=body, headers=bearer("sk-twenty")) as answer:
        assert answer.headers["x-tokenpool-pool"] == "short"
        assert answer.headers["x-ratelimit-limit-requests"] == "20"
        assert answer.headers["x-ratelimit-remaining-requests"] == "19"
        assert answer.headers["x-ratelimit-limit-tokens"] == "1000000"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/completions", {"prompt": "once upon a time", "max_tokens": 5}, id="completions"),
        pytest.param(
            "/v1/completions", {"prompt": [[1, 2, 3]], "max_tokens": 5, "stream": True}, id="token ids, streamed"
        ),
        pytest.param("/v1/embeddings", {"input": ["a", "b"]}, id="embeddings"),
        pytest.param("/v1/responses", {"input": "hello", "max_output_tokens": 5}, id="responses"),
        pytest.param(
            "/v1/responses", {"input": "hello", "max_output_tokens": 5, "stream": True}, id="responses, streamed"
        ),
        pytest.param("/v1/messages", {"messages": HELLO, "max_tokens": 5}, id="messages"),
        pytest.param("/v1/messages", {"messages": HELLO, "max_tokens": 5, "stream": True}, id="messages, streamed"),
    ],
)
async def test_every_api_is_settled_by_what_the_server_counted(
    stack: Stack, http: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    before, told = stack.state()["models"]["m"]["entitlements"]["wide"]["settled"], stack.totals()
    async with http.post(path, json={"model": "m", **body}, headers=bearer("sk-wide")) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()
    await until(lambda: idle(stack.state()))
    after, now = stack.state()["models"]["m"]["entitlements"]["wide"]["settled"], stack.totals()
    assert after["prompt"] - before["prompt"] == now["prompt_tokens"] - told["prompt_tokens"] > 0
    assert after["completion"] - before["completion"] == now["completion_tokens"] - told["completion_tokens"]


async def test_a_short_request_goes_to_the_short_pool_and_a_long_one_to_the_long(http: aiohttp.ClientSession) -> None:
    pools = []
    for words in (20, 3000):
        body = {"model": "alias", "messages": [{"role": "user", "content": "word " * words}], "max_tokens": 4}
        async with http.post("/v1/chat/completions", json=body, headers=bearer("sk-wide")) as answer:
            assert answer.status == 200
            pools.append(answer.headers["x-tokenpool-pool"])
    assert pools == ["short", "long"]


async def test_a_prompt_that_the_short_server_refuses_is_retried_once_on_the_long_one(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    """The short pool claims 2,048 tokens, its server takes 1,500; about 1,600 are sent."""
    before = stack.metric("tokenpool_misroutes_total")
    body = {"model": "m", "prompt": [7] * 1600, "max_tokens": 4}
    async with http.post("/v1/completions", json=body, headers=bearer("sk-wide")) as answer:
        assert (answer.status, answer.headers["x-tokenpool-pool"]) == (200, "short")
    await until(lambda: stack.metric("tokenpool_misroutes_total") == before + 1)


async def test_what_reaches_the_server_holds_no_key_and_nothing_the_client_forged(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    forged = {"x-tokenpool-pool": "long", "x-envoy-max-retries": "9", "x-envoy-retry-on": "5xx"}
    body = {"model": "m", "messages": HELLO, "max_tokens": 3}
    async with http.post("/v1/chat/completions", json=body, headers=bearer("sk-wide") | forged) as answer:
        assert answer.status == 200
    headers = stack.last("short")["headers"]
    assert "authorization" not in headers
    assert headers["x-tokenpool-pool"] == "short"
    assert not {"x-envoy-max-retries", "x-envoy-retry-on"} & headers.keys()


async def test_models_lists_what_the_key_may_use(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/models", headers=bearer("sk-wide")) as answer:
        assert [model["id"] for model in (await answer.json())["data"]] == ["m", "alias"]
    async with http.get("/v1/models", headers=bearer("sk-nobody")) as answer:
        assert answer.status == 401


async def test_two_hundred_at_once_against_a_base_of_twenty(stack: Stack, http: aiohttp.ClientSession) -> None:
    body = {"model": "m", "messages": HELLO, "max_tokens": 200}

    async def ask() -> tuple[int, str]:
        async with http.post("/v1/chat/completions", json=body, headers=bearer("sk-twenty")) as answer:
            await answer.read()
            return answer.status, answer.headers.get("x-tokenpool-reason", "")

    outcomes = Counter(await asyncio.gather(*(ask() for _ in range(200))))
    await until(lambda: idle(stack.state()))
    peak = stack.state()["models"]["m"]["entitlements"]["twenty"]["peak"]
    assert set(outcomes) == {(200, ""), (429, "concurrency")}
    assert outcomes[200, ""] >= 20
    assert peak["concurrency"] == 20


BAD = {
    "no key": ("/v1/chat/completions", {}, b'{"model":"m","messages":[]}', 401),
    "unknown key": ("/v1/chat/completions", bearer("sk-nobody"), b'{"model":"m","messages":[]}', 401),
    "not JSON": ("/v1/chat/completions", bearer("sk-wide"), b"hello", 400),
    "cut short": ("/v1/chat/completions", bearer("sk-wide"), b'{"model":"m","messages":[{"ro', 400),
    "a list": ("/v1/chat/completions", bearer("sk-wide"), b"[1, 2]", 400),
    "invalid UTF-8": ("/v1/chat/completions", bearer("sk-wide"), b'{"model":"\xff\xfe","messages":[]}', 400),
    "wrong types": ("/v1/chat/completions", bearer("sk-wide"), b'{"model":"m","messages":"x","max_tokens":"1"}', 400),
    "negative max_tokens": ("/v1/completions", bearer("sk-wide"), b'{"model":"m","prompt":"x","max_tokens":-1}', 400),
    "n of a billion": ("/v1/completions", bearer("sk-wide"), b'{"model":"m","prompt":"x","n":1000000000}', 400),
    "deep": ("/v1/chat/completions", bearer("sk-wide"), b'{"model":"m","messages":' + b"[" * 100_000, 400),
    "unknown model": (
        "/v1/chat/completions",
        bearer("sk-wide"),
        b'{"model":"gpt","messages":[{"role":"user","content":"x"}]}',
        404,
    ),
    "unknown path": ("/v1/nothing", bearer("sk-wide"), b"{}", 404),
    "too long for any pool": (
        "/v1/completions",
        bearer("sk-wide"),
        b'{"model":"m","prompt":"x","max_tokens":99999}',
        400,
    ),
    "no body": ("/v1/chat/completions", bearer("sk-wide"), b"", 400),
    "64 MiB": ("/v1/chat/completions", bearer("sk-wide"), b" " * (64 << 20), 413),
    "Anthropic's shape": ("/v1/messages", {"x-api-key": "sk-nobody"}, b'{"model":"m","messages":[]}', 401),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_gets_its_4xx_in_the_shape_of_its_api(
    stack: Stack, http: aiohttp.ClientSession, name: str
) -> None:
    path, headers, body, status = BAD[name]
    async with http.post(
        path, data=io.BytesIO(body), headers={"content-type": "application/json", **headers}
    ) as answer:
        assert answer.status == status
        error = await answer.json()
        assert answer.headers["x-tokenpool-reason"]
    assert error["error"]["message"]
    assert ("type" in error) == (path == "/v1/messages")
    assert idle(stack.state())
