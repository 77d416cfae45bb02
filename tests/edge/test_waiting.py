"""Requests that wait for room: answered when there is some, forgotten when their client leaves, moved on by a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from extproc.core.refusal import Reason
from extproc.core.request import fingerprint
from extproc.ledger import Refused
from extproc.wire import MOVABLE_BYTES, Request, Response
from tests.edge.envoys import CHAT, HELLO, as_bytes, bare_body, body_message, headers_message, headers_of, verdict_of
from tests.edge.lending import LIMITS, Lender, Lending, lender, with_tenants
from tests.edge.sidecars import MAX_BODY_BYTES, Caller, until

KEY = "sk-patient"
LARGE = {**HELLO, "user": "x" * MOVABLE_BYTES}


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Lender]:
    async with lender(tmp_path / "edge.sock", Lending(), with_tenants()) as found:
        yield found


@pytest.fixture
async def envoy(worker: Lender) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(worker.address) as channel:
        yield Caller(channel)


async def waiting(worker: Lender, count: int = 1) -> None:
    async def so_many() -> bool:
        return len(worker.ledger.waiting) == count

    await until(so_many)


async def begun(envoy: Caller, worker: Lender, *messages: Request) -> grpc.aio.StreamStreamCall[Any, Response]:
    """A stream whose request waits for room."""
    stream = envoy.stream()
    for number, message in enumerate(messages):
        if number:
            await stream.read()
        await stream.write(message)
    await waiting(worker)
    return stream


async def test_a_request_that_waits_is_answered_once_it_is_granted(envoy: Caller, worker: Lender) -> None:
    stream = await begun(envoy, worker, body_message(key=KEY))
    worker.ledger.grant("long")
    answer = await stream.read()
    assert isinstance(answer, Response)
    assert verdict_of(answer)["route"] == "llama/long"
    assert await stream.read() is grpc.aio.EOF


async def test_a_request_that_waited_in_vain_is_told_why(envoy: Caller, worker: Lender) -> None:
    stream = await begun(envoy, worker, body_message(key=KEY))
    [request] = worker.ledger.waiting.values()
    request.set_result(Refused(Reason.POOL_CAPACITY, 3000, LIMITS))
    answer = await stream.read()
    assert isinstance(answer, Response)
    assert (answer.immediate_response.status.code, headers_of(answer)["retry-after"]) == (429, "3")


async def test_what_is_asked_again_is_known_by_its_fingerprint(envoy: Caller, worker: Lender) -> None:
    for body in (HELLO, HELLO, {**HELLO, "max_tokens": 21}):
        await envoy.ask(body_message(body))
    first, again, other = (demand.fingerprint for demand in worker.ledger.asked)
    assert first == again == fingerprint(as_bytes(HELLO)) != other


async def test_a_client_that_leaves_while_it_waits_leaves_the_queue(envoy: Caller, worker: Lender) -> None:
    stream = await begun(envoy, worker, body_message(key=KEY))
    stream.cancel()
    await waiting(worker, 0)
    assert worker.seen.decisions == []


async def test_what_waits_while_a_worker_stops_goes_to_another(envoy: Caller, worker: Lender) -> None:
    stream = await begun(envoy, worker, body_message(key=KEY))
    async with asyncio.timeout(2):
        await worker.edge.stop(60)
    assert await stream.code() is grpc.StatusCode.UNAVAILABLE  # with nothing written before: Envoy may try again
    assert worker.ledger.waiting == {}
    assert worker.seen.decisions == []  # the other worker's verdict is the verdict


def classic() -> tuple[Request, Request]:
    return headers_message("POST", CHAT, end_of_stream=False, authorization=f"Bearer {KEY}"), bare_body(HELLO)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((body_message(LARGE, key=KEY),), id="more than Envoy keeps for a second try"),
        pytest.param(classic(), id="the classic form: its headers were answered before"),
    ],
)
async def test_what_cannot_be_moved_is_refused_at_once(
    envoy: Caller, worker: Lender, messages: tuple[Request, ...]
) -> None:
    assert len(as_bytes(LARGE)) < MAX_BODY_BYTES
    stream = await begun(envoy, worker, *messages)
    stopping = asyncio.create_task(worker.edge.stop(60))
    async with asyncio.timeout(2):
        answer = await stream.read()
        await stopping
    assert isinstance(answer, Response)
    assert answer.immediate_response.status.code == 503
    assert headers_of(answer)["x-tokenpool-reason"] == "shutting_down"
    assert headers_of(answer)["retry-after"] == "1"
    assert [fact.reason for fact in worker.seen.decisions] == ["shutting_down"]


async def test_what_comes_while_a_worker_stops_does_not_begin_to_wait(envoy: Caller, worker: Lender) -> None:
    worker.edge._verdicts.stop()
    stream = envoy.stream()
    await stream.write(body_message(key=KEY))
    assert await stream.code() is grpc.StatusCode.UNAVAILABLE
    assert worker.ledger.asked == []
    assert verdict_of(await envoy.ask(body_message()))["verdict"] == "admit"  # who does not wait is still served


async def test_a_client_that_leaves_as_its_worker_stops_disturbs_nothing(envoy: Caller, worker: Lender) -> None:
    stream = await begun(envoy, worker, body_message(key=KEY))
    stream.cancel()
    worker.edge._verdicts.stop()
    await waiting(worker, 0)
    assert await stream.code() is grpc.StatusCode.CANCELLED
    assert worker.seen.decisions == []
