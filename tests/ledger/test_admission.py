"""What the ledger admits and refuses, on real servers."""

from __future__ import annotations

import asyncio

import pytest

from extproc.core.policy import ServiceClass, Vector
from extproc.core.refusal import Reason
from extproc.ledger import Admitted, Demand, Refused
from tests.ledger.conftest import LEASE_MS, Benches, entitlement, model

WIDE = Vector(100_000, 1_000_000, 1_000)
GUARANTEED, ELASTIC, SPOT = ServiceClass.GUARANTEED, ServiceClass.ELASTIC, ServiceClass.SPOT


async def test_a_request_inside_its_base_is_admitted_to_the_first_pool_that_has_room(bench: Benches) -> None:
    b = bench(model(short=WIDE, long=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    _, answer = await b.ask("a")
    assert isinstance(answer, Admitted)
    assert answer.pool == "short"


async def test_limits_say_what_is_left_after_the_decision(bench: Benches) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    _, answer = await b.ask("a", tokens=300)
    limits = answer.limits
    assert (limits.slots_limit, limits.slots_left, limits.slots_reset_ms) == (4, 3, 0)
    assert (limits.tokens_limit, limits.tokens_left, limits.tokens_reset_ms) == (1000, 700, 3000)


@pytest.mark.parametrize(
    ("vector", "tokens", "kv", "reason"),
    [
        pytest.param(Vector(10, 100_000, 100), 60, 1, Reason.TOKENS_PER_SECOND, id="tokens_per_second"),
        pytest.param(Vector(100_000, 100, 100), 1, 60, Reason.KV_TOKENS, id="kv_tokens"),
        pytest.param(Vector(100_000, 100_000, 1), 1, 1, Reason.CONCURRENCY, id="concurrency"),
    ],
)
async def test_the_refusal_names_the_unit_that_ran_out(
    bench: Benches, vector: Vector, tokens: int, kv: int, reason: Reason
) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, vector))
    await b.ask("a", tokens, kv)
    _, answer = await b.ask("a", tokens, kv)
    assert isinstance(answer, Refused)
    assert answer.reason is reason


@pytest.mark.parametrize("caps", [Vector(10, 9999, 99), Vector(25, 9999, 99)], ids=["base only", "base and burst"])
async def test_the_wait_named_for_tokens_is_exact(bench: Benches, caps: Vector) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, Vector(10, 9999, 99), caps))
    while True:
        _, answer = await b.ask("a", tokens=70)
        if isinstance(answer, Refused):
            break
    b.pass_ms(answer.retry_ms - 1)
    assert isinstance((await b.ask("a", tokens=70))[1], Refused)
    b.pass_ms(1)
    assert isinstance((await b.ask("a", tokens=70))[1], Admitted)


async def test_burst_takes_from_the_excess_and_leaves_the_base_whole(bench: Benches) -> None:
    a = entitlement("a", GUARANTEED, Vector(10, 100, 9), Vector(30, 500, 9))
    b = bench(model(short=WIDE), a)
    await b.ask("a", tokens=10, kv=100)  # the base's KV tokens are now all in use
    await b.ask("a", tokens=150, kv=200)  # outside the base: the excess bucket pays
    state = (await b.ledger.state("m")).entitlements["a"]
    assert state.balance_tokens == (100 - 10) + (200 - 150)
    await b.settle("lease-0", 10)
    _, answer = await b.ask("a", tokens=90, kv=100)  # the base again, with all that is left of it
    assert isinstance(answer, Admitted)


async def test_two_hundred_at_once_never_exceed_a_base_of_twenty(bench: Benches) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, Vector(100_000, 100_000, 20)))
    answers = [answer for _, answer in await asyncio.gather(*(b.ask("a", 10) for _ in range(200)))]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    state = (await b.ledger.state("m")).entitlements["a"]
    assert len(answers) - len(refused) == state.peak.concurrency == 20
    assert {answer.reason for answer in refused} == {Reason.CONCURRENCY}


async def test_elastic_leaves_the_unclaimed_base_of_guaranteed_alone(bench: Benches) -> None:
    b = bench(
        model(only=Vector(100_000, 100_000, 10)),
        entitlement("g", GUARANTEED, Vector(100, 1000, 6)),
        entitlement("e", ELASTIC, WIDE),
    )
    elastic = [(await b.ask("e", 10))[1] for _ in range(10)]
    guaranteed = [(await b.ask("g", 10))[1] for _ in range(6)]
    assert [isinstance(answer, Admitted) for answer in elastic] == [True] * 4 + [False] * 6
    assert all(isinstance(answer, Admitted) for answer in guaranteed)
    assert isinstance(elastic[-1], Refused)
    assert elastic[-1].reason is Reason.POOL_CAPACITY


async def test_tokens_of_the_burst_may_run_in_the_slots_of_ones_own_base(bench: Benches) -> None:
    """All slots of the pool are promised to it, and it wants more tokens than its base bucket holds."""
    g = entitlement("g", GUARANTEED, Vector(100, 1000, 4), Vector(300, 9000, 8))
    b = bench(model(only=Vector(100_000, 100_000, 4)), g)
    answers = [(await b.ask("g", 900, kv=200))[1] for _ in range(3)]
    assert all(isinstance(answer, Admitted) for answer in answers)


async def test_a_base_lease_that_ends_in_one_pool_leaves_the_promise_whole_in_the_other(bench: Benches) -> None:
    b = bench(
        model(short=Vector(9999, 9999, 4), long=Vector(9999, 9999, 4)),
        entitlement("g", GUARANTEED, Vector(100, 1000, 4)),
        entitlement("e", ELASTIC, WIDE),
    )
    mine = [await b.ask("g", 10, pools=("short",)) for _ in range(4)]
    for _ in range(4):
        await b.ask("e", 10, pools=("long",))
    for lease, _ in mine:
        await b.settle(lease)
    again = [(await b.ask("g", 10, pools=("long",)))[1] for _ in range(4)]
    assert all(isinstance(answer, Admitted) for answer in again)


async def test_a_full_pool_spills_to_the_next(bench: Benches) -> None:
    b = bench(model(short=Vector(9999, 9999, 1), long=WIDE), entitlement("e", ELASTIC, Vector(1000, 1000, 9)))
    answers = [(await b.ask("e", 10))[1] for _ in range(2)]
    assert [answer.pool for answer in answers if isinstance(answer, Admitted)] == ["short", "long"]


async def test_settling_refunds_what_was_not_used(bench: Benches) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    lease, _ = await b.ask("a", tokens=500)
    assert await b.settle(lease, 120)
    state = await b.ledger.state("m")
    assert state.entitlements["a"].balance_tokens == 1000 - 120
    assert state.entitlements["a"].in_use == state.pools["short"].in_use == Vector()
    assert state.leases == 0


async def test_over_use_becomes_a_negative_balance(bench: Benches) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    lease, _ = await b.ask("a", tokens=500)
    await b.settle(lease, 1700)
    assert (await b.ledger.state("m")).entitlements["a"].balance_tokens == -700
    _, answer = await b.ask("a", tokens=100)
    assert isinstance(answer, Refused)
    assert answer.retry_ms == 8000


async def test_a_lease_settles_once_however_often_it_is_tried(bench: Benches) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    lease, _ = await b.ask("a")
    settled = await asyncio.gather(*(b.settle(lease, 60) for _ in range(20)))
    state = (await b.ledger.state("m")).entitlements["a"]
    assert sum(settled) == 1
    assert (state.settled_prompt_tokens, state.balance_tokens) == (60, 940)


@pytest.mark.parametrize("at_once", [True, False], ids=["in one call", "one after the other"])
async def test_a_lease_that_is_asked_for_twice_is_held_once(bench: Benches, at_once: bool) -> None:
    b = bench(model(short=WIDE, long=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    demand = Demand("same", "m", b.policy.entitlements[0], ("long", "short"), 100, 100)
    if at_once:
        answers = list(await asyncio.gather(b.ledger.admit(demand), b.ledger.admit(demand), b.ledger.admit(demand)))
    else:
        answers = [await b.ledger.admit(demand) for _ in range(3)]
    assert [answer.pool for answer in answers if isinstance(answer, Admitted)] == ["long"] * 3
    assert (await b.ledger.state("m")).entitlements["a"].in_use == Vector(10, 100, 1)
    assert await b.settle("same", 60)
    assert (await b.ledger.state("m")).entitlements["a"].in_use == Vector()


async def test_a_lease_expires_at_its_deadline_and_not_before(bench: Benches) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    lease, _ = await b.ask("a")
    b.pass_ms(LEASE_MS - 1)
    assert await b.ledger.expired("m", 10) == ()
    b.pass_ms(1)
    [found] = await b.ledger.expired("m", 10)
    assert (found.lease, found.entitlement, found.pool, found.tokens, found.kv_tokens) == (
        lease,
        "a",
        "short",
        100,
        100,
    )


async def test_a_renewed_lease_lives_for_another_lifetime(bench: Benches) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    lease, _ = await b.ask("a")
    b.pass_ms(LEASE_MS - 1)
    assert await b.ledger.renew("m", [lease, "gone"]) == 1
    b.pass_ms(LEASE_MS - 1)
    assert await b.ledger.expired("m", 10) == ()
    b.pass_ms(1)
    assert [found.lease for found in await b.ledger.expired("m", 10)] == [lease]


async def test_a_name_that_looks_like_a_number_is_a_name(bench: Benches) -> None:
    b = bench(model(short=WIDE), entitlement("1e5", GUARANTEED, Vector(100, 1000, 4)))
    lease, _ = await b.ask("1e5")
    assert (await b.ledger.state("m")).entitlements["1e5"].in_use.concurrency == 1
    assert await b.settle(lease)


async def test_every_key_lives_in_the_slot_of_its_model_and_has_a_lifetime(bench: Benches) -> None:
    b = bench(model(short=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    await b.settle((await b.ask("a"))[0], 10)
    await b.ask("a")
    client = b.ledger._client
    keys = [str(key) for key in await client.keys("*")]
    assert keys
    assert all(key.startswith("tp3:{m}:") for key in keys)
    assert all([await client.pttl(key) > 0 for key in keys])


async def test_a_lease_asked_for_again_with_other_pools_is_the_one_that_is_held(bench: Benches) -> None:
    b = bench(model(short=WIDE, long=WIDE), entitlement("a", GUARANTEED, Vector(100, 1000, 4)))
    a = b.policy.entitlements[0]
    for pools in (("long",), ("short",)):
        answer = await b.ledger.admit(Demand("same", "m", a, pools, 10, 10))
        assert isinstance(answer, Admitted)
        assert answer.pool == "long"
    await b.settle("same", 10)
    assert all(pool.in_use == Vector() for pool in (await b.ledger.state("m")).pools.values())


async def test_over_use_of_a_class_without_a_base_is_repaid_at_its_rate(bench: Benches) -> None:
    b = bench(model(only=WIDE), entitlement("s", SPOT, Vector(100, 10_000, 10)))
    lease, _ = await b.ask("s", 1)
    await b.settle(lease, 3000)
    b.pass_ms(60_000)
    assert isinstance((await b.ask("s", 1000))[1], Admitted)


async def test_over_use_of_a_guaranteed_tenant_makes_no_room_for_spot(bench: Benches) -> None:
    b = bench(
        model(only=Vector(1000, 1_000_000, 100)),
        entitlement("g", GUARANTEED, Vector(100, 10_000, 10)),
        entitlement("s", SPOT, WIDE),
    )
    lease, _ = await b.ask("g", 100)
    await b.settle(lease, 100_000)
    _, answer = await b.ask("s", 100)
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.POOL_CAPACITY
