"""Requests on borrowed room: their streams stay open, and end them when their room is claimed."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from extproc import verdicts
from extproc.core.metadata import STREAM_HEADER
from extproc.core.ticket import decode
from extproc.wire import Request, Response
from tests.edge.envoys import CHAT, HELLO, bare_body, body_message, headers_message, headers_of, verdict_of
from tests.edge.lending import Lender, Lending, lender, with_tenants
from tests.edge.sidecars import Caller, until

KEY = "sk-borrower"
MANY = 1000

Stream = grpc.aio.StreamStreamCall[Any, Response]


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Lender]:
    async with lender(tmp_path / "edge.sock", Lending(), with_tenants()) as found:
        yield found


@pytest.fixture
async def envoy(worker: Lender) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(worker.address) as channel:
        yield Caller(channel)


async def borrowed(worker: Lender, count: int = 1) -> None:
    async def so_many() -> bool:
        return len(worker.ledger.borrowed) == count

    await until(so_many)


async def begun(envoy: Caller, *messages: Request) -> tuple[Stream, Response]:
    """A stream that has its verdict, and that verdict."""
    stream = envoy.stream()
    answer: object = None
    for message in messages:
        await stream.write(message)
        answer = await stream.read()
    assert isinstance(answer, Response)
    return stream, answer


def lease_of(verdict: Response) -> str:
    ticket = decode(verdict_of(verdict)["ticket"])
    assert ticket is not None
    return ticket.lease


def one_message() -> tuple[Request, ...]:
    return (body_message(key=KEY),)


def classic() -> tuple[Request, ...]:
    headers = headers_message("POST", CHAT, end_of_stream=False, authorization=f"Bearer {KEY}")
    return headers, bare_body(HELLO)


FORMS = pytest.mark.parametrize("messages", [one_message(), classic()], ids=["one message", "classic"])


@FORMS
async def test_whose_room_is_claimed_is_ended(envoy: Caller, worker: Lender, messages: tuple[Request, ...]) -> None:
    stream, verdict = await begun(envoy, *messages)
    await borrowed(worker)
    worker.ledger.take_back(lease_of(verdict))
    ending = await stream.read()
    assert isinstance(ending, Response)
    headers = headers_of(ending)
    assert ending.immediate_response.status.code == 429
    assert (headers["x-tokenpool-reason"], headers["retry-after-ms"]) == ("preempted", "1000")
    error = json.loads(ending.immediate_response.body)["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "'borrower'" in error["message"]
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_what_ends_a_request_leaves_its_ticket_to_be_settled(envoy: Caller, worker: Lender) -> None:
    stream, verdict = await begun(envoy, *one_message())
    await borrowed(worker)
    worker.ledger.take_back(lease_of(verdict))
    ending = await stream.read()
    assert isinstance(ending, Response)
    assert not ending.HasField("dynamic_metadata")
    assert worker.ledger.settled == []


async def test_anthropics_clients_are_ended_in_anthropics_shape(envoy: Caller, worker: Lender) -> None:
    stream, verdict = await begun(envoy, body_message(path="/v1/messages", key="", x_api_key=KEY))
    await borrowed(worker)
    worker.ledger.take_back(lease_of(verdict))
    ending = await stream.read()
    assert isinstance(ending, Response)
    found = json.loads(ending.immediate_response.body)
    assert (found["type"], found["error"]["type"]) == ("error", "rate_limit_error")


async def test_a_request_is_ended_once_and_counted_once(envoy: Caller, worker: Lender) -> None:
    stream, verdict = await begun(envoy, *one_message())
    await borrowed(worker)
    worker.ledger.take_back(lease_of(verdict))
    worker.ledger.take_back(lease_of(verdict))
    assert isinstance(await stream.read(), Response)
    assert await stream.read() is grpc.aio.EOF
    worker.ledger.take_back(lease_of(verdict))
    assert worker.seen.ended == [("llama", "borrower", "preemptible")]


async def test_only_the_request_whose_room_is_claimed_is_ended(envoy: Caller, worker: Lender) -> None:
    (kept, _), (ended, verdict) = [await begun(envoy, *one_message()) for _ in range(2)]
    await borrowed(worker, 2)
    worker.ledger.take_back(lease_of(verdict))
    assert isinstance(await ended.read(), Response)
    assert len(worker.ledger.borrowed) == 1
    assert not kept.done()
    kept.cancel()


async def half_closed(stream: Stream) -> None:
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def cancelled(stream: Stream) -> None:
    stream.cancel()


@FORMS
@pytest.mark.parametrize("end", [half_closed, cancelled], ids=lambda end: end.__name__)
async def test_a_request_that_ends_by_itself_leaves_nothing_behind(
    envoy: Caller, worker: Lender, messages: tuple[Request, ...], end: Any
) -> None:
    before = len(asyncio.all_tasks())
    streams = [(await begun(envoy, *messages))[0] for _ in range(20)]
    await borrowed(worker, 20)
    for stream in streams:
        await end(stream)
    await borrowed(worker, 0)
    assert worker.edge._lent == set()
    del stream, streams
    await until(lambda: no_more_tasks_than(before))
    assert worker.seen.ended == []


async def no_more_tasks_than(count: int) -> bool:
    return len(asyncio.all_tasks()) <= count


async def test_a_worker_that_stops_lets_borrowers_go_on(envoy: Caller, worker: Lender) -> None:
    stream, _ = await begun(envoy, *one_message())
    await borrowed(worker)
    async with asyncio.timeout(2):
        await worker.edge.stop(60)
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK  # anything else would end the request
    assert worker.ledger.borrowed == {}
    assert worker.seen.ended == []
    assert worker.ledger.settled == []


async def test_an_outage_of_the_ledger_ends_nobody(
    envoy: Caller, worker: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "CLAIMS_RETRY_SECONDS", 0.001)
    worker.ledger.failing = True
    stream, verdict = await begun(envoy, *one_message())

    async def failed_twice() -> bool:
        return worker.ledger.failed >= 2

    await until(failed_twice)
    worker.ledger.failing = False
    await borrowed(worker)
    worker.ledger.take_back(lease_of(verdict))
    ending = await stream.read()
    assert isinstance(ending, Response)
    assert ending.immediate_response.status.code == 429


async def test_many_open_streams_do_not_slow_the_verdicts_of_others(envoy: Caller, worker: Lender) -> None:
    async def usual_seconds() -> float:
        times = []
        for number in range(150):
            started = time.perf_counter()
            await envoy.ask(body_message(**{STREAM_HEADER: str(number)}))
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    await usual_seconds()  # the first ones are slower
    alone = await usual_seconds()
    streams = [(await begun(envoy, *one_message()))[0] for _ in range(MANY)]
    await borrowed(worker, MANY)
    assert await usual_seconds() < 3 * alone
    for stream in streams:
        stream.cancel()
    await borrowed(worker, 0)
