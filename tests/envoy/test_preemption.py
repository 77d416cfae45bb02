"""Requests on borrowed room that are ended through Envoy, before and after their answers began."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import betterproto2
import pytest

from extproc.envoy_config import Deployment, clusters
from tests.envoy.workers import CHAT, PAUSED, STREAM, Fleet, come_true, fleet

SOON_SECONDS = 0.5  # many times what it takes, as a busy machine may need
SILENT = {**STREAM, "wait": True}  # the server accepts it and says nothing

CLASSIC = pytest.mark.parametrize("classic", [False, True], ids=["one message", "classic"])


def take_back(one: Fleet) -> None:
    for worker in one.workers:
        for lease in list(worker.ledger.borrowed):
            worker.ledger.take_back(lease)


async def asked(one: Fleet, body: dict[str, Any], path: str = CHAT) -> asyncio.Task[aiohttp.ClientResponse]:
    """A borrower's request that has reached the server."""
    before = len(one.server.requests)
    asking = one.post("borrower", body, path)
    await come_true(lambda: len(one.server.requests) > before and len(one.borrowed()) == 1)
    return asking


@CLASSIC
async def test_before_its_answer_began_a_client_is_told_why(tmp_path: Path, classic: bool) -> None:
    async with fleet(tmp_path, classic=classic) as one:
        asking = await asked(one, SILENT)
        started = time.perf_counter()
        take_back(one)
        async with await asking as answer:
            assert time.perf_counter() - started < SOON_SECONDS
            assert (answer.status, answer.headers["x-tokenpool-reason"]) == (429, "preempted")
            assert (answer.headers["retry-after-ms"], answer.headers["content-type"]) == ("1000", "application/json")
            error = (await answer.json())["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")


async def test_anthropics_clients_are_told_in_anthropics_shape(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one:
        asking = await asked(one, SILENT, "/v1/messages")
        take_back(one)
        async with await asking as answer:
            assert json.loads(await answer.read())["error"]["type"] == "rate_limit_error"


@CLASSIC
async def test_after_its_answer_began_it_is_cut_off_at_the_server_at_once(tmp_path: Path, classic: bool) -> None:
    async with fleet(tmp_path, classic=classic) as one, await (await asked(one, PAUSED)) as answer:
        assert await answer.content.readline() == b"data: {}\n"
        started = time.perf_counter()
        take_back(one)
        await come_true(lambda: one.server.abandoned == 1)
        assert time.perf_counter() - started < SOON_SECONDS
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
        assert time.perf_counter() - started < SOON_SECONDS


@pytest.mark.parametrize(
    ("body", "source", "status"),
    [
        pytest.param(PAUSED, "estimated", 200, id="what was sent is charged"),
        pytest.param(SILENT, "nothing", 429, id="nothing was sent"),
    ],
)
async def test_its_lease_is_settled_with_what_was_used(
    tmp_path: Path, body: dict[str, Any], source: str, status: int
) -> None:
    async with fleet(tmp_path) as one:
        asking = await asked(one, body)
        if status == 200:
            await (await asking).content.readline()
        [lease] = one.borrowed()
        take_back(one)
        await come_true(lambda: len(one.worker.seen.settlements) == 1)
        [settlement], [fact] = one.worker.ledger.settled, one.worker.seen.settlements
        assert (settlement.lease, fact.source, fact.status) == (lease, source, status)
        assert (fact.prompt_tokens > 0) is (source == "estimated")
        assert one.worker.seen.ended == [("llama", "borrower", "preemptible")]
        (await asking).close()


async def test_an_answer_that_ends_by_itself_leaves_no_stream_behind(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one:
        async with await (await asked(one, PAUSED)) as answer:
            one.server.go_on.set()
            assert (await answer.read()).endswith(b"last")
        await come_true(lambda: one.borrowed() == [])
        assert one.worker.edge._lent == set()


async def test_a_client_that_hangs_up_leaves_no_stream_behind(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one:
        asking = await asked(one, SILENT)
        asking.cancel()
        await come_true(lambda: one.borrowed() == [])
        await come_true(lambda: one.server.abandoned == 1)


async def test_a_worker_that_stops_lets_a_borrowers_answer_go_on(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one, await (await asked(one, PAUSED)) as answer:
        await answer.content.readline()
        await one.worker.edge.stop(60)
        one.server.go_on.set()
        assert (await answer.read()).endswith(b"last")


async def test_an_answer_on_room_of_its_own_outlives_its_worker(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one, await one.post("acme", PAUSED) as answer:
        await answer.content.readline()
        await one.worker.edge._server.stop(None)
        one.server.go_on.set()
        assert (await answer.read()).endswith(b"last")


async def test_an_answer_on_borrowed_room_ends_with_its_worker(tmp_path: Path) -> None:
    """Nobody could end it any more when its room is claimed."""
    async with fleet(tmp_path) as one, await (await asked(one, PAUSED)) as answer:
        await answer.content.readline()
        await one.worker.edge._server.stop(None)
        await come_true(lambda: one.server.abandoned == 1)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


def test_the_streams_of_all_borrowers_share_a_connection_for_each_thread() -> None:
    """Envoy's default of 1,024 was seen to open a third connection for 3,000 streams on two threads; this does not."""
    config = clusters.sidecar_cluster(Deployment(("unix:/s",))).to_dict(casing=betterproto2.Casing.SNAKE)
    [options] = config["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"]["http2_protocol_options"]["max_concurrent_streams"] >= 100_000
