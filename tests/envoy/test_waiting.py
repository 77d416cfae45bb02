"""Requests that wait for room, as clients see it through Envoy."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from extproc.envoy_config import Deployment, timeouts
from extproc.wire import MOVABLE_BYTES
from tests.edge.lending import MAX_WAIT_MS, with_tenants
from tests.edge.sidecars import SETTINGS
from tests.envoy.workers import STREAM, come_true, fleet

CLASSIC = pytest.mark.parametrize("classic", [False, True], ids=["one message", "classic"])


async def statuses(asking: list[asyncio.Task[aiohttp.ClientResponse]]) -> list[int]:
    answers = await asyncio.gather(*asking)
    for answer in answers:
        await answer.read()
    return [answer.status for answer in answers]


@CLASSIC
async def test_a_request_that_waits_is_served_once_there_is_room(tmp_path: Path, classic: bool) -> None:
    async with fleet(tmp_path, classic=classic) as one:
        asking = one.post("patient", STREAM)
        await come_true(lambda: one.waiting() == [1])
        one.worker.ledger.grant()
        async with await asking as answer:
            assert (answer.status, answer.headers["x-tokenpool-pool"]) == (200, "short")


@CLASSIC
async def test_a_client_that_hangs_up_leaves_the_queue(tmp_path: Path, classic: bool) -> None:
    async with fleet(tmp_path, classic=classic) as one:
        asking = one.post("patient", STREAM)
        await come_true(lambda: one.waiting() == [1])
        asking.cancel()
        await come_true(lambda: one.waiting() == [0])
        assert one.server.requests == []


async def test_those_who_wait_on_a_worker_that_stops_wait_on_another(tmp_path: Path) -> None:
    async with fleet(tmp_path, workers=2) as one:
        asking = [one.post("patient", {**STREAM, "user": str(number)}) for number in range(6)]
        await come_true(lambda: sum(one.waiting()) == 6)
        stops, other = one.workers
        async with asyncio.timeout(5):
            await stops.edge.stop(60)
        await come_true(lambda: one.waiting() == [0, 6])
        other.ledger.grant()
        assert await statuses(asking) == [200] * 6
        assert len(one.server.requests) == 6


async def test_those_who_wait_on_a_worker_that_dies_wait_on_another(tmp_path: Path) -> None:
    async with fleet(tmp_path, workers=2) as one:
        asking = [one.post("patient", {**STREAM, "user": str(number)}) for number in range(6)]
        await come_true(lambda: sum(one.waiting()) == 6)
        dies, other = one.workers
        await dies.edge._server.stop(None)  # its streams are reset, as by a kill
        await come_true(lambda: one.waiting() == [0, 6])
        other.ledger.grant()
        assert await statuses(asking) == [200] * 6


async def test_where_no_other_worker_is_left_those_who_wait_are_told_to_come_again(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one:
        asking = one.post("patient", STREAM)
        await come_true(lambda: one.waiting() == [1])
        await one.worker.edge.stop(60)
        async with await asking as answer:
            assert (answer.status, answer.headers["x-tokenpool-reason"]) == (503, "shutting_down")
            assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("size", [MOVABLE_BYTES + 1, 100_000])
async def test_a_body_too_large_to_be_sent_again_is_refused_by_the_worker_that_stops(tmp_path: Path, size: int) -> None:
    async with fleet(tmp_path, workers=2) as one:
        asking = one.post("patient", {**STREAM, "user": "x" * size})
        await come_true(lambda: sum(one.waiting()) == 1)
        [stops] = [worker for worker in one.workers if worker.ledger.waiting]
        await stops.edge.stop(60)
        async with await asking as answer:
            assert (answer.status, answer.headers["x-tokenpool-reason"]) == (503, "shutting_down")
            assert "restarting" in (await answer.json())["error"]["message"]


def test_every_time_out_that_a_wait_meets_is_longer_than_the_longest_wait() -> None:
    settings, deployment = with_tenants(), Deployment(("unix:/s",))
    wait = timedelta(milliseconds=MAX_WAIT_MS)
    assert timeouts.verdict(settings, deployment) == wait + timedelta(seconds=2)
    assert timeouts.silence(settings, deployment) > wait
    served = timedelta(seconds=settings.request_timeout_seconds)
    assert timeouts.verdict_stream(settings, deployment) > timeouts.verdict(settings, deployment) + served


def test_where_nobody_may_wait_a_verdict_must_come_soon() -> None:
    assert timeouts.verdict(SETTINGS, Deployment(("unix:/s",))) == timedelta(seconds=2)


def test_a_long_silence_is_allowed_where_a_wait_may_be_longer_than_an_answer() -> None:
    settings = replace(with_tenants(), request_timeout_seconds=5)
    assert timeouts.silence(settings, Deployment(("unix:/s",))) == timedelta(milliseconds=MAX_WAIT_MS, seconds=2)
