"""One lease in the hands of two sidecars, as when Envoy asks a second one; and news that does not arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from extproc.core.policy import Entitlement, Policy, ServiceClass, Vector
from extproc.ledger import Admitted, Demand, Refused, Settlement
from extproc.redis_ledger import RedisLedger, connect
from tests.ledger.conftest import LEASE_MS, Silent, entitlement, model

ONE = Vector(100_000, 100_000, 1)
WIDE = Vector(100_000, 100_000, 100)
ELASTIC = replace(entitlement("e", ServiceClass.ELASTIC, ONE, WIDE), max_wait_ms=20_000)
GUARANTEED = entitlement("g", ServiceClass.GUARANTEED, ONE)
SPOT = entitlement("s", ServiceClass.SPOT, WIDE)


@dataclass
class Two:
    """Two sidecars on one server, in real time."""

    first: RedisLedger
    second: RedisLedger

    async def settle(self, lease: str) -> bool:
        return await self.second.settle(Settlement(lease, "m", 10, 10, 0))

    async def leases(self) -> int:
        return (await self.second.state("m")).leases

    async def waiting(self) -> int:
        return sum(state.waiting for state in (await self.second.state("m")).entitlements.values())

    async def until_waiting(self, count: int) -> None:
        while await self.waiting() != count:
            pass


@asynccontextmanager
async def sidecars(url: str, *entitlements: Entitlement) -> AsyncIterator[Two]:
    clients = [connect(url) for _ in range(2)]
    await clients[0].flushall()
    policy = Policy((model(only=ONE),), entitlements)
    made = [RedisLedger(c, policy, Silent(), lease_ms=LEASE_MS, timeout_ms=2000, tick_ms=60_000) for c in clients]
    yield Two(*made)
    for ledger in made:
        await ledger.close()


@pytest.fixture
async def two(redis_url: str) -> AsyncIterator[Two]:
    """Of a pool whose only slot is guaranteed, and lent."""
    async with sidecars(redis_url, GUARANTEED, SPOT) as found:
        yield found


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Two]:
    """Of a pool with one slot, for which its tenant's requests wait."""
    async with sidecars(redis_url, ELASTIC) as found:
        yield found


def asked(of: Entitlement, lease: str) -> Demand:
    return Demand(lease, "m", of, ("only",), 10, 10)


async def fill(two: Two) -> str:
    """The only slot, taken."""
    assert isinstance(await two.first.admit(asked(ELASTIC, "held")), Admitted)
    return "held"


async def test_a_waiting_request_is_told_where_it_was_asked_for_last(queue: Two) -> None:
    held = await fill(queue)
    lost = asyncio.create_task(queue.first.admit(asked(ELASTIC, "x")))
    await queue.until_waiting(1)
    again = asyncio.create_task(queue.second.admit(asked(ELASTIC, "x")))
    await queue.second.alive()
    await asyncio.wait((again,), timeout=0.1)
    await queue.settle(held)
    assert isinstance(await asyncio.wait_for(again, 5), Admitted)
    lost.cancel()


async def test_the_first_sidecar_that_gives_up_does_not_cancel_the_seconds_wait(queue: Two) -> None:
    held = await fill(queue)
    first = asyncio.create_task(queue.first.admit(asked(ELASTIC, "x")))
    await queue.until_waiting(1)
    second = asyncio.create_task(queue.second.admit(asked(ELASTIC, "x")))
    await asyncio.wait((second,), timeout=0.1)
    first.cancel()
    await asyncio.wait((first,), timeout=1)
    await queue.first.alive()
    assert await queue.waiting() == 1
    await queue.settle(held)
    assert isinstance(await asyncio.wait_for(second, 5), Admitted)


async def test_a_sidecar_that_was_held_up_does_not_end_the_wait_in_anothers_hands(queue: Two) -> None:
    held = await fill(queue)
    first = asyncio.create_task(queue.first.admit(asked(replace(ELASTIC, max_wait_ms=300), "x")))
    await queue.until_waiting(1)
    second = asyncio.create_task(queue.second.admit(asked(ELASTIC, "x")))
    assert isinstance(await asyncio.wait_for(first, 5), Refused)
    assert await queue.waiting() == 1
    await queue.settle(held)
    assert isinstance(await asyncio.wait_for(second, 5), Admitted)


async def test_a_late_cancel_leaves_the_lease_that_another_sidecar_holds(two: Two) -> None:
    demand = asked(GUARANTEED, "x")
    await two.first.admit(demand)
    await two.second.admit(demand)
    await two.first._cancelled(demand)
    assert await two.leases() == 1
    assert await two.settle("x")


async def test_a_borrowed_lease_is_taken_back_where_it_was_asked_for_last(two: Two) -> None:
    await two.first.admit(asked(SPOT, "x"))
    answer = await two.second.admit(asked(SPOT, "x"))
    assert isinstance(answer, Admitted)
    assert answer.borrowed
    assert isinstance(await two.first.admit(asked(GUARANTEED, "claim")), Admitted)
    await asyncio.wait_for(two.second.taken_back("x"), 5)


async def test_a_lease_that_was_taken_back_is_no_room_for_who_asks_again(two: Two) -> None:
    await two.first.admit(asked(SPOT, "x"))
    await two.first.admit(asked(GUARANTEED, "claim"))
    answer = await two.second.admit(asked(SPOT, "x"))
    assert isinstance(answer, Admitted)
    assert answer.borrowed
    await asyncio.wait_for(two.second.taken_back("x"), 5)


async def test_what_is_settled_is_watched_no_longer(two: Two) -> None:
    await two.first.admit(asked(SPOT, "x"))
    await two.first.settle(Settlement("x", "m", 10, 10, 0))
    assert not two.first._news.borrowed
    assert not two.first._borrowed


@pytest.mark.parametrize("timeout_ms", [20, 2000], ids=["no answer in time", "an answer that nobody takes"])
async def test_an_admission_whose_client_left_meanwhile_is_given_back(
    two: Two, redis_url: str, timeout_ms: int
) -> None:
    policy = Policy((model(only=ONE),), (GUARANTEED,))
    hurried = RedisLedger(connect(redis_url), policy, Silent(), lease_ms=LEASE_MS, timeout_ms=timeout_ms)
    assert await hurried.alive()
    await two.second._client.client_pause(150)  # of all clients, in ms
    task = asyncio.create_task(hurried.admit(asked(GUARANTEED, "x")))
    await asyncio.wait((task,), timeout=0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    while hurried._admissions["m"]._running or hurried._tasks:  # the call, then what gives its lease back
        await two.second.alive()
    assert await two.leases() == 0
    await hurried.close()


async def test_all_who_wait_are_asked_for_again_after_the_news_was_interrupted(queue: Two) -> None:
    held = await fill(queue)
    of = replace(ELASTIC, max_waiting=1000)
    tasks = [asyncio.create_task(queue.first.admit(asked(of, f"w{i}"))) for i in range(300)]
    await queue.until_waiting(300)
    await queue.second._client.client_kill_filter(_type="pubsub")
    await queue.settle(held)
    done, _ = await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert [isinstance(task.result(), Admitted) for task in done] == [True]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_refused_lease_may_be_asked_for_twice_in_one_sidecar(queue: Two) -> None:
    await fill(queue)
    impatient = replace(ELASTIC, max_wait_ms=100)
    answers = await asyncio.gather(
        *(queue.first.admit(asked(impatient, "x")) for _ in range(2)), return_exceptions=True
    )
    assert all(isinstance(answer, Refused) for answer in answers)
