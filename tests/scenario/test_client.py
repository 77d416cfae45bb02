from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from extproc.core.policy import Vector
from extproc.scenario.client import Clock, OpenLoop, tokens_in
from extproc.scenario.loads import Request
from extproc.scenario.outcomes import Ending, Outcome
from extproc.sim.options import options_from_url
from extproc.sim.server import serve

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def simulated(query: str) -> AsyncIterator[str]:
    capacity = Vector(kv_tokens=20_000, concurrency=2)
    options = options_from_url(f"sim://?{query}", model="model", max_model_len=2048, capacity=capacity)
    handle = await serve(options, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{handle.port}/v1"
    finally:
        await handle.close()


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def sent(url: str, *requests: Request, until: float = 60.0, speed: float = 100.0) -> list[Outcome]:
    client = OpenLoop(url, {"t": "sk-t"}, Clock.started(speed))
    await client.drive(requests, until)
    return sorted(client.outcomes, key=lambda one: one.request.number)


async def test_a_stream_is_timed_to_its_first_token_and_counted_to_its_last() -> None:
    async with simulated("decode_ms=20") as url:
        [found] = await sent(url, Request(0, "t", 0.0, 10), speed=1)
    assert (found.ending, found.tokens) == (Ending.DONE, 10)
    assert found.first_token is not None
    assert 0.02 <= found.first_token < found.end - 8 * 0.02


async def test_requests_go_out_on_time_whatever_the_ones_before_wait_for() -> None:
    """The server has two slots, each for 20 s; the third request is sent all the same, and waits there."""
    async with simulated("decode_ms=2000&speed=100") as url:
        requests = [Request(number, "t", number * 1.0, 10) for number in range(3)]
        found = await sent(url, *requests)
    assert all(one.sent_late < 1.0 for one in found)
    assert [one.ending for one in found] == [Ending.DONE] * 3
    assert found[2].until_first_token > 15.0


async def test_what_is_unfinished_at_the_end_is_left_and_says_how_long_it_waited() -> None:
    async with simulated("prefill_ms_per_1k=100000000") as url:
        begun = time.monotonic()
        [found] = await sent(url, Request(0, "t", 5.0, 10), until=25.0)
    assert time.monotonic() - begun < 5
    assert (found.ending, found.first_token) == (Ending.UNFINISHED, None)
    assert found.until_first_token == pytest.approx(20.0, abs=5.0)


async def test_a_request_that_goes_out_late_is_timed_from_when_it_was_due() -> None:
    async with simulated("speed=1000") as url:
        clock = Clock.started(100)
        client = OpenLoop(url, {"t": "sk-t"}, clock)
        await clock.until(20.0)
        await client.drive([Request(0, "t", 5.0, 10)], 60.0)
    [found] = client.outcomes
    assert found.sent_late >= 15.0
    assert found.until_first_token >= found.sent_late


async def test_an_early_end_of_all_answers_ends_the_run() -> None:
    async with simulated("speed=1000") as url:
        begun = time.monotonic()
        await sent(url, Request(0, "t", 0.0, 10), until=3600.0)
    assert time.monotonic() - begun < 5


async def test_a_refusal_keeps_its_reason_and_its_time_to_retry() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"x-tokenpool-reason": "concurrency", "retry-after-ms": "30"})

    async with answering(refuse) as url:
        [found] = await sent(url, Request(0, "t", 0.0, 10))
    assert (found.ending, found.status, found.reason) == (Ending.REFUSED, 429, "concurrency")
    assert found.retry_after == pytest.approx(3.0)  # 30 ms at a speed of 100


@pytest.mark.parametrize(
    ("status", "reason", "ending"),
    [
        pytest.param(429, "preempted", Ending.BROKEN_OFF, id="taken back before the answer began"),
        pytest.param(503, "no_servers", Ending.FAILED, id="no server"),
    ],
)
async def test_other_errors_are_told_from_refusals(status: int, reason: str, ending: Ending) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"x-tokenpool-reason": reason})

    async with answering(refuse) as url:
        [found] = await sent(url, Request(0, "t", 0.0, 10))
    assert found.ending is ending


async def test_an_answer_that_breaks_off_is_no_finished_one() -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"choices":[{"delta":{"content":"one"}}]}\n\n')
        assert request.transport is not None
        request.transport.close()
        return response

    async with answering(hang_up) as url:
        [found] = await sent(url, Request(0, "t", 0.0, 10))
    assert (found.ending, found.status, found.tokens) == (Ending.BROKEN_OFF, 200, 1)


async def test_where_nobody_listens_the_request_has_failed() -> None:
    [found] = await sent("http://127.0.0.1:1/v1", Request(0, "t", 0.0, 10))
    assert (found.ending, found.status) == (Ending.FAILED, 0)


async def test_tokens_are_counted_by_tenant_and_second() -> None:
    async with simulated("decode_ms=200&speed=100") as url:
        client = OpenLoop(url, {"t": "sk-t"}, Clock.started(100))
        await client.drive([Request(0, "t", 0.0, 10)], 60.0)
    assert client.tokens.total() == 10
    assert {tenant for tenant, _ in client.tokens} == {"t"}


async def test_each_request_has_a_prompt_of_its_own_so_that_none_counts_as_asked_again() -> None:
    bodies = []

    async def keep(request: web.Request) -> web.Response:
        bodies.append(await request.text())
        return web.Response(status=429)

    async with answering(keep) as url:
        await sent(url, Request(0, "t", 0.0, 10), Request(1, "t", 0.0, 10))
    assert len(set(bodies)) == 2


@pytest.mark.parametrize(
    ("event", "tokens"),
    [
        pytest.param(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}', 0, id="opening"),
        pytest.param(b'data: {"choices":[{"delta":{"content":" a"}}]}', 1, id="token"),
        pytest.param(b'data: {"choices":[],"usage":{"prompt_tokens":3}}', 0, id="usage"),
        pytest.param(b"data: [DONE]", 0, id="end"),
        pytest.param(b": keep-alive", 0, id="comment"),
    ],
)
def test_only_content_is_a_token(event: bytes, tokens: int) -> None:
    assert tokens_in(event) == tokens


async def test_the_clock_runs_as_fast_as_told() -> None:
    clock = Clock.started(1000)
    await clock.until(20.0)
    assert 20.0 <= clock.now < 20.0 + 1000
    await asyncio.wait_for(clock.until(5.0), 1)  # past already
