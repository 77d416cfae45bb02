"""Requests that wait for room in the shared queue; on real servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from extproc.core.policy import Entitlement, Policy, Prioritise, ServiceClass, Vector
from extproc.core.refusal import Reason
from extproc.ledger import Admitted, Refused
from extproc.redis_ledger import RedisLedger, connect, news
from tests.ledger.conftest import LEASE_MS, Bench, Benches, Silent, entitlement, model

WIDE = Vector(100_000, 1_000_000, 1_000)
ELASTIC, SPOT = ServiceClass.ELASTIC, ServiceClass.SPOT
ONE = Vector(100_000, 100_000, 1)


def patient(
    name: str, service_class: ServiceClass = ELASTIC, prioritise: Prioritise = Prioritise.NONE, most: int = 100
) -> Entitlement:
    base = entitlement(name, service_class, Vector(100, 1000, 1), WIDE)
    return replace(base, max_wait_ms=30_000, prioritise=prioritise, max_waiting=most)


Asked = asyncio.Task[tuple[str, Admitted | Refused]]


async def waiting(b: Bench, name: str, tokens: int = 10) -> Asked:
    """A request that waits by now."""
    before = await _count(b, name)
    task = asyncio.create_task(b.ask(name, tokens))
    while await _count(b, name) == before:
        assert not task.done()
    b.pass_ms(1)
    return task


async def _until_waiting(b: Bench, name: str, count: int) -> None:
    while await _count(b, name) != count:
        pass


async def _count(b: Bench, name: str) -> int:
    states = (await b.ledger.state("m")).entitlements
    return states[name].waiting if name in states else 0


async def served(b: Bench, first: str, tasks: list[Asked]) -> list[int]:
    """Settles one lease after another; in which order the tasks were granted."""
    order, lease = [], first
    for _ in tasks:
        await b.settle(lease)
        left = [task for number, task in enumerate(tasks) if number not in order]
        [done], _ = await asyncio.wait(left, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        order.append(tasks.index(done))
        lease = done.result()[0]
        assert isinstance(done.result()[1], Admitted)
    return order


async def test_a_waiting_request_is_granted_what_a_settlement_frees(bench: Benches) -> None:
    b = bench(model(only=ONE), patient("e"))
    first, _ = await b.ask("e", 10)
    task = await waiting(b, "e")
    await b.settle(first)
    _, answer = await asyncio.wait_for(task, 5)
    assert isinstance(answer, Admitted)
    assert await _count(b, "e") == 0


async def test_requests_of_one_tenant_are_served_as_they_came(bench: Benches) -> None:
    b = bench(model(only=ONE), patient("e"))
    first, _ = await b.ask("e", 10)
    tasks = [await waiting(b, "e") for _ in range(4)]
    assert await served(b, first, tasks) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("prioritise", "order"),
    [
        pytest.param(Prioritise.SMALLER, [1, 2, 0], id="smaller"),
        pytest.param(Prioritise.LARGER, [0, 2, 1], id="larger"),
    ],
)
async def test_a_tenant_may_put_its_requests_in_order_of_size(
    bench: Benches, prioritise: Prioritise, order: list[int]
) -> None:
    b = bench(model(only=ONE), patient("e", prioritise=prioritise))
    first, _ = await b.ask("e", 10)
    tasks = [await waiting(b, "e", tokens) for tokens in (300, 10, 50)]
    assert await served(b, first, tasks) == order


async def test_the_weightier_tenant_is_served_first_and_a_higher_class_before_both(bench: Benches) -> None:
    b = bench(
        model(only=ONE),
        patient("light"),
        patient("heavy"),
        patient("spot", SPOT),
    )
    await b.set_share("light", Vector(), WIDE, weight=1.0)
    await b.set_share("heavy", Vector(), WIDE, weight=5.0)
    await b.set_share("spot", Vector(), WIDE, weight=100.0)
    await b.set_pool("only", servers=1, elastic=Vector())
    first, _ = await b.ask("light", 10)
    tasks = [await waiting(b, name) for name in ("spot", "light", "heavy")]
    assert await served(b, first, tasks) == [2, 1, 0]


async def test_a_tenant_that_weighs_more_by_now_goes_before_those_that_came_earlier(bench: Benches) -> None:
    b = bench(model(only=ONE), patient("a"), patient("b"))
    await b.set_pool("only", servers=1, elastic=Vector())
    first, _ = await b.ask("a", 10)
    tasks = [await waiting(b, name) for name in ("a", "a", "b")]
    await b.set_share("a", Vector(), WIDE, weight=1.0)
    await b.set_share("b", Vector(), WIDE, weight=2.0)
    assert await served(b, first, tasks) == [2, 0, 1]


async def test_one_that_cannot_go_yet_does_not_hold_up_other_tenants(bench: Benches) -> None:
    b = bench(model(only=Vector(100_000, 1000, 5)), patient("big"), patient("small"))
    await b.set_share("big", Vector(), WIDE, weight=9.0)
    await b.set_pool("only", servers=1, elastic=Vector())
    first, _ = await b.ask("small", 600)
    big = await waiting(b, "big", 900)
    _, answer = await asyncio.wait_for(b.ask("small", 100), 5)
    assert isinstance(answer, Admitted)
    await b.settle("lease-2")
    await b.settle(first)
    assert isinstance((await asyncio.wait_for(big, 5))[1], Admitted)


async def test_a_request_inside_a_promised_base_never_waits_behind_a_burst_of_its_own_tenant(bench: Benches) -> None:
    g = replace(patient("g", ServiceClass.GUARANTEED), base=Vector(100, 1000, 2))
    b = bench(model(only=Vector(100_000, 1000, 2)), g)
    first, _ = await b.ask("g", 600)
    burst = await waiting(b, "g", 500)
    _, answer = await asyncio.wait_for(b.ask("g", 100), 5)
    assert isinstance(answer, Admitted)
    await b.settle(first)
    assert isinstance((await asyncio.wait_for(burst, 5))[1], Admitted)


async def test_who_has_waited_long_enough_is_refused_and_leaves_nothing(bench: Benches) -> None:
    b = bench(model(only=ONE), replace(patient("e"), max_wait_ms=50))
    await b.ask("e", 10)
    _, answer = await b.ask("e", 10)
    assert isinstance(answer, Refused)
    assert (answer.reason, answer.retry_ms > 0) == (Reason.POOL_CAPACITY, True)
    assert await _count(b, "e") == 0


async def test_who_hangs_up_leaves_the_queue_at_once(bench: Benches) -> None:
    b = bench(model(only=ONE), patient("e"))
    first, _ = await b.ask("e", 10)
    gone, stays = await waiting(b, "e"), await waiting(b, "e")
    gone.cancel()
    await _until_waiting(b, "e", 1)
    await b.settle(first)
    assert isinstance((await asyncio.wait_for(stays, 5))[1], Admitted)


async def test_no_more_wait_than_the_tenant_may_have_waiting(bench: Benches) -> None:
    b = bench(model(only=ONE), patient("e", most=2))
    first, _ = await b.ask("e", 10)
    tasks = [await waiting(b, "e") for _ in range(2)]
    _, answer = await asyncio.wait_for(b.ask("e", 10), 5)
    assert isinstance(answer, Refused)
    assert await served(b, first, tasks) == [0, 1]


async def test_a_request_that_waits_for_tokens_goes_when_they_have_come(bench: Benches) -> None:
    narrow = replace(entitlement("e", ELASTIC, Vector(1000, 9000, 9)), max_wait_ms=30_000)
    b = bench(model(only=WIDE), narrow)
    await b.ask("e", 10_000, 10)
    task = asyncio.create_task(b.ask("e", 100, 10))
    await _until_waiting(b, "e", 1)
    b.pass_ms(100)
    assert isinstance((await asyncio.wait_for(task, 5))[1], Admitted)


async def test_a_settlement_on_another_sidecar_wakes_the_waiting_one(bench: Benches, redis_url: str) -> None:
    b = bench(model(only=ONE), patient("e"))
    other = RedisLedger(
        connect(redis_url),
        Policy(b.policy.models, b.policy.entitlements),
        Silent(),
        lease_ms=LEASE_MS,
        timeout_ms=2000,
        now_ms=lambda: b.now[0],
    )
    first, _ = await b.ask("e", 10)
    task = await waiting(b, "e")
    assert await Bench(other, b.policy, b.now).settle(first)
    assert isinstance((await asyncio.wait_for(task, 5))[1], Admitted)
    await other.close()


async def test_what_was_granted_while_nobody_listened_is_asked_for_again(bench: Benches, redis_url: str) -> None:
    b = bench(model(only=ONE), patient("e"))
    first, _ = await b.ask("e", 10)
    task = await waiting(b, "e")
    client = connect(redis_url)
    await client.client_kill_filter(_type="pubsub")
    await b.settle(first)
    assert isinstance((await asyncio.wait_for(task, 5))[1], Admitted)
    await client.aclose()


async def test_a_ledger_closes_whatever_its_subscription_does(
    bench: Benches, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "PING_SECONDS", 0)
    monkeypatch.setattr(news, "MOST_SILENT_PINGS", 1_000_000)
    monkeypatch.setattr(news, "CANCEL_SECONDS", 0.01)
    policy = bench(model(only=ONE), patient("e")).policy
    for steps in range(40):  # of the loop, so that one of them falls into a ping
        ledger = RedisLedger(connect(redis_url), policy, Silent(), lease_ms=LEASE_MS, timeout_ms=2000)
        assert await ledger._news.ready(5)
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.wait_for(ledger.close(), 5)


async def test_a_request_asked_for_again_is_not_more_demand(bench: Benches) -> None:
    b = bench(model(only=ONE), entitlement("e", ELASTIC, Vector(100, 1000, 1), WIDE))
    first, _ = await b.ask_for("e", "held")
    for _ in range(20):
        assert isinstance((await b.ask_for("e", "again"))[1], Refused)
    await b.ask_for("e", "another")
    assert await _asked(b, "e") == 300
    unmet = await b.ledger._client.hget("tp3:{m}:unmet", "e")
    assert [entry.split(":")[0] for entry in str(unmet).split()] == ["again", "another"]
    await b.settle(first, 70)
    assert isinstance((await b.ask_for("e", "again"))[1], Admitted)
    assert await _asked(b, "e") == 270
    assert "again" not in str(await b.ledger._client.hget("tp3:{m}:unmet", "e"))


async def _asked(b: Bench, name: str) -> int:
    record = await b.ledger._client.hget("tp3:{m}:entitlements", name)
    return int(str(record).split()[11])


async def test_lower_classes_leave_room_in_the_queue_for_higher_ones(bench: Benches) -> None:
    spot = [patient(f"s{i}", SPOT) for i in range(6)]
    b = bench(model(only=ONE), patient("e"), *spot)
    first, _ = await b.ask("e", 10)
    tasks = [asyncio.create_task(b.ask(one.name, 10)) for one in spot for _ in range(100)]
    done, waits = await asyncio.wait(tasks, timeout=2)
    assert len(waits) == 500
    assert all(isinstance(task.result()[1], Refused) for task in done)
    task = await waiting(b, "e")
    await b.settle(first)
    assert isinstance((await asyncio.wait_for(task, 5))[1], Admitted)
    for one in waits:
        one.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
