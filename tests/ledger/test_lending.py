"""Idle guaranteed bases are lent, and taken back when they are claimed; on real servers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extproc.core.policy import ServiceClass, Sharing, Vector
from extproc.core.refusal import Reason
from extproc.ledger import Admitted, Refused
from tests.ledger.conftest import Bench, Benches, entitlement, model

WIDE = Vector(100_000, 1_000_000, 1_000)
DEDICATED, GUARANTEED, ELASTIC = ServiceClass.DEDICATED, ServiceClass.GUARANTEED, ServiceClass.ELASTIC
SPOT, PREEMPTIBLE = ServiceClass.SPOT, ServiceClass.PREEMPTIBLE
TEN = Vector(100_000, 10_000, 10)


async def admitted(b: Bench, name: str, times: int, kv: int = 10) -> list[str]:
    """Leases of those that were admitted."""
    answers = [await b.ask(name, 10, kv) for _ in range(times)]
    return [lease for lease, answer in answers if isinstance(answer, Admitted)]


@pytest.mark.parametrize("borrower", [SPOT, PREEMPTIBLE])
async def test_an_idle_guaranteed_base_is_lent(bench: Benches, borrower: ServiceClass) -> None:
    b = bench(model(only=TEN), entitlement("g", GUARANTEED, Vector(100, 1000, 6)), entitlement("b", borrower, WIDE))
    assert len(await admitted(b, "b", 12)) == 10


@pytest.mark.parametrize("borrower", [ELASTIC, SPOT, PREEMPTIBLE])
async def test_an_idle_dedicated_base_is_kept_free(bench: Benches, borrower: ServiceClass) -> None:
    b = bench(model(only=TEN), entitlement("d", DEDICATED, Vector(100, 1000, 6)), entitlement("b", borrower, WIDE))
    assert len(await admitted(b, "b", 12)) == 4
    assert len(await admitted(b, "d", 6)) == 6


async def test_the_headroom_is_not_lent(bench: Benches) -> None:
    of = model(Sharing(headroom_requests=2), only=TEN)
    b = bench(of, entitlement("g", GUARANTEED, Vector(100, 1000, 6)), entitlement("s", SPOT, WIDE))
    assert len(await admitted(b, "s", 12)) == 8


async def test_where_spot_may_not_borrow_only_preemptible_does(bench: Benches) -> None:
    of = model(Sharing(lend_to_spot=False, headroom_requests=0), only=TEN)
    b = bench(
        of,
        entitlement("g", GUARANTEED, Vector(100, 1000, 6)),
        entitlement("s", SPOT, WIDE),
        entitlement("p", PREEMPTIBLE, WIDE),
    )
    assert (len(await admitted(b, "s", 12)), len(await admitted(b, "p", 12))) == (4, 6)


async def test_a_claim_takes_back_the_youngest_borrowed_lease(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("g", GUARANTEED, Vector(100, 1000, 6)), entitlement("p", PREEMPTIBLE, WIDE))
    borrowed = []
    for _ in range(10):
        borrowed += await admitted(b, "p", 1)
        b.pass_ms(1)
    assert len(await admitted(b, "g", 2)) == 2
    assert [await b.is_taken(lease) for lease in borrowed] == [False] * 8 + [True] * 2


async def test_preemptible_requests_go_before_spot_ones_that_are_younger(bench: Benches) -> None:
    b = bench(
        model(only=TEN),
        entitlement("g", GUARANTEED, Vector(100, 1000, 6)),
        entitlement("p", PREEMPTIBLE, WIDE),
        entitlement("s", SPOT, WIDE),
    )
    preemptible = await admitted(b, "p", 2)
    b.pass_ms(10)
    spot = await admitted(b, "s", 8)
    await admitted(b, "g", 3)
    assert [await b.is_taken(lease) for lease in preemptible] == [True, True]
    assert sum([await b.is_taken(lease) for lease in spot]) == 1


async def test_a_spot_request_on_surplus_is_never_taken_back(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("g", GUARANTEED, Vector(100, 1000, 6)), entitlement("s", SPOT, WIDE))
    answers = [(await b.ask("s", 10, 10))[1] for _ in range(10)]
    assert [answer.borrowed for answer in answers if isinstance(answer, Admitted)] == [False] * 4 + [True] * 6


async def test_a_claim_of_many_kv_tokens_takes_back_as_many_leases_as_it_needs(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("g", GUARANTEED, Vector(900, 6000, 6)), entitlement("p", PREEMPTIBLE, WIDE))
    borrowed = await admitted(b, "p", 9, kv=1100)
    assert len(borrowed) == 9
    assert len(await admitted(b, "g", 1, kv=2300)) == 1  # 100 are free: two of 1100 make room
    assert sum([await b.is_taken(lease) for lease in borrowed]) == 2


async def test_a_guaranteed_claim_takes_back_what_is_lent_and_not_what_is_kept_for_dedicated(bench: Benches) -> None:
    b = bench(
        model(only=TEN),
        entitlement("d", DEDICATED, Vector(100, 1000, 4)),
        entitlement("g", GUARANTEED, Vector(100, 1000, 6)),
        entitlement("p", PREEMPTIBLE, WIDE),
    )
    borrowed = await admitted(b, "p", 10)
    assert len(borrowed) == 6
    assert len(await admitted(b, "g", 3)) == 3
    assert sum([await b.is_taken(lease) for lease in borrowed]) == 3
    assert len(await admitted(b, "d", 4)) == 4


async def test_nothing_is_taken_back_for_a_burst_above_the_base(bench: Benches) -> None:
    b = bench(
        model(only=TEN),
        entitlement("g", GUARANTEED, Vector(100, 1000, 2), WIDE),
        entitlement("p", PREEMPTIBLE, WIDE),
    )
    borrowed = await admitted(b, "p", 10)
    assert len(await admitted(b, "g", 4)) == 2
    assert sum([await b.is_taken(lease) for lease in borrowed]) == 2


async def test_elastic_takes_nothing_back(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("e", ELASTIC, Vector(100, 1000, 4)), entitlement("p", PREEMPTIBLE, WIDE))
    assert len(await admitted(b, "p", 12)) == 6  # beside the elastic base
    assert len(await admitted(b, "e", 4)) == 4


async def test_the_room_of_a_taken_lease_is_counted_once(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("g", GUARANTEED, Vector(100, 1000, 6)), entitlement("p", PREEMPTIBLE, WIDE))
    borrowed = await admitted(b, "p", 10)
    claimed = await admitted(b, "g", 6)
    state = await b.ledger.state("m")
    assert state.pools["only"].in_use.concurrency == 10
    assert state.entitlements["p"].in_use.concurrency == 4
    for lease in borrowed + claimed:
        assert await b.settle(lease, 5)
    state = await b.ledger.state("m")
    assert state.leases == 0
    assert state.pools["only"].in_use == state.entitlements["p"].in_use == state.entitlements["g"].in_use == Vector()
    assert state.entitlements["p"].settled_prompt_tokens == 50


async def test_without_a_server_that_answers_the_refusal_says_so(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("g", GUARANTEED, Vector(100, 1000, 6)))
    await b.set_pool("only", servers=0, elastic=Vector())
    _, answer = await b.ask("g", 10)
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.NO_SERVERS


async def test_elastic_above_its_share_leaves_the_shares_of_others(bench: Benches) -> None:
    b = bench(
        model(only=TEN),
        entitlement("a", ELASTIC, Vector(100, 1000, 5), WIDE),
        entitlement("b", ELASTIC, Vector(100, 1000, 5), WIDE),
    )
    await b.set_share("a", Vector(50, 5000, 3), WIDE)
    await b.set_share("b", Vector(50, 5000, 7), WIDE)
    await b.set_pool("only", servers=1, elastic=Vector(100, 10_000, 10))
    assert (len(await admitted(b, "a", 10)), len(await admitted(b, "b", 10))) == (3, 7)


async def test_a_cap_of_the_controller_holds_until_the_next_tick(bench: Benches) -> None:
    b = bench(model(only=WIDE), entitlement("e", ELASTIC, Vector(1000, 1000, 2), Vector(5000, 5000, 9)))
    await b.set_share("e", Vector(1000, 1000, 2), Vector(2000, 2000, 4))
    assert len(await admitted(b, "e", 9)) == 4
    await b.set_share("e", Vector(1000, 1000, 2), Vector(5000, 5000, 50))
    assert len(await admitted(b, "e", 9)) == 5  # the configured burst is never exceeded


async def test_no_share_takes_a_promised_base_away(bench: Benches) -> None:
    b = bench(model(only=WIDE), entitlement("g", GUARANTEED, Vector(1000, 1000, 4)))
    await b.set_share("g", Vector(0, 0, 0), Vector(0, 0, 0))
    assert len(await admitted(b, "g", 9)) == 4


async def test_spot_above_its_share_of_the_surplus_leaves_that_of_others(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("s", SPOT, WIDE), entitlement("t", SPOT, WIDE))
    await b.set_share("s", Vector(50, 5000, 5), WIDE)
    await b.set_share("t", Vector(50, 5000, 5), WIDE)
    await b.set_pool("only", servers=1, elastic=Vector(), surplus=Vector(100, 10_000, 10))
    assert (len(await admitted(b, "s", 10)), len(await admitted(b, "t", 10))) == (5, 5)


async def test_dedicated_tokens_are_no_part_of_what_others_share(bench: Benches) -> None:
    b = bench(
        model(only=Vector(100, 1_000_000, 100)),
        entitlement("d", DEDICATED, Vector(60, 100_000, 50)),
        entitlement("s", SPOT, Vector(1000, 100_000, 50)),
    )
    assert isinstance((await b.ask("s", 8192))[1], Admitted)  # all that the pool's bucket holds
    b.pass_ms(10_000)  # of 100 tokens a second 40 are left
    assert isinstance((await b.ask("s", 500))[1], Refused)
    assert isinstance((await b.ask("s", 400))[1], Admitted)
    lease, answer = await b.ask("d", 600)
    assert isinstance(answer, Admitted)
    await b.settle(lease, 300)
    b.pass_ms(10_000)  # neither its use nor its refund is theirs
    assert isinstance((await b.ask("s", 401))[1], Refused)
    assert isinstance((await b.ask("s", 400))[1], Admitted)


async def test_what_an_entitlement_has_left_of_its_own_share_does_not_stand_in_its_way(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("e", ELASTIC, Vector(1000, 10_000, 10)))
    await b.set_share("e", Vector(1000, 50, 10), WIDE)
    await b.set_pool("only", servers=1, elastic=Vector(1000, 50, 10))
    assert len(await admitted(b, "e", 1, kv=10_000)) == 1


async def test_a_cap_that_fell_takes_nothing_of_a_promised_base(bench: Benches) -> None:
    b = bench(model(only=WIDE), entitlement("g", GUARANTEED, Vector(1000, 10_000, 4), Vector(1000, 10_000, 8)))
    leases = await admitted(b, "g", 8)
    await b.set_share("g", Vector(1000, 10_000, 4), Vector(1000, 10_000, 4))
    for lease in leases[:6]:
        await b.settle(lease)
    assert len(await admitted(b, "g", 4)) == 2  # beside the two that run, whether these began inside the base or not


IN_NINE_HUNDRED = (
    entitlement("d", DEDICATED, Vector(1000, 200, 2), Vector(1000, 900, 8)),
    entitlement("g", GUARANTEED, Vector(1000, 300, 3), Vector(1000, 900, 8)),
    entitlement("e", ELASTIC, Vector(1000, 300, 2), Vector(1000, 900, 8)),
    entitlement("p", PREEMPTIBLE, WIDE),
)
POOL = Vector(100_000, 900, 8)


def in_nine_hundred(bench: Benches, **pools: Vector) -> Bench:
    """The promises and the elastic base take 800 KV tokens and 7 slots of a pool."""
    return bench(model(**(pools or {"only": POOL})), *IN_NINE_HUNDRED)


@pytest.mark.parametrize(
    ("name", "kv", "yes"),
    [
        pytest.param("g", 301, True, id="guaranteed, a little"),
        pytest.param("g", 400, True, id="guaranteed, all that nobody claims"),
        pytest.param("g", 401, False, id="guaranteed, some of the elastic share"),
        pytest.param("d", 300, True, id="dedicated, all that nobody claims"),
        pytest.param("d", 301, False, id="dedicated, some of the elastic share"),
    ],
)
async def test_a_request_above_a_promised_base_may_have_what_is_left_of_the_base_and_what_nobody_claims(
    bench: Benches, name: str, kv: int, yes: bool
) -> None:
    b = in_nine_hundred(bench)
    _, answer = await b.ask(name, 10, kv)
    assert isinstance(answer, Admitted) is yes
    if not yes:
        assert isinstance(answer, Refused)
        assert answer.reason is Reason.POOL_CAPACITY


@pytest.mark.parametrize(("name", "kv", "yes"), [("d", 300, True), ("d", 301, False), ("g", 301, False)])
async def test_above_a_base_only_what_is_free_counts_where_the_guaranteed_base_is_lent(
    bench: Benches, name: str, kv: int, yes: bool
) -> None:
    """600 of 900 KV tokens are free, 500 of them kept for dedicated and elastic."""
    b = in_nine_hundred(bench)
    assert len(await admitted(b, "p", 3, kv=100)) == 3
    assert isinstance((await b.ask(name, 10, kv))[1], Admitted) is yes


@pytest.mark.parametrize("burst", ["d", "g"])
async def test_a_burst_above_a_promised_base_leaves_every_other_claim_whole(bench: Benches, burst: str) -> None:
    b = in_nine_hundred(bench)
    await b.ask(burst, 10, 400 if burst == "g" else 300)
    claims = {"d": (2, 100), "g": (3, 100), "e": (2, 150)}
    del claims[burst]
    assert [len(await admitted(b, name, times, kv)) for name, (times, kv) in claims.items()] == [
        times for times, _ in claims.values()
    ]


async def test_a_unit_of_which_the_base_has_enough_left_is_taken_from_it(bench: Benches) -> None:
    """All six slots are claimed: a request above its base in KV tokens takes a slot of its own base."""
    b = in_nine_hundred(bench, only=Vector(100_000, 1800, 6))
    assert [len(await admitted(b, "g", 1, kv=kv)) for kv in (301, 10, 10, 10)] == [1, 1, 1, 0]
    assert len(await admitted(b, "d", 2)) == 2


async def test_a_burst_uses_up_the_base_and_takes_nothing_back_for_what_is_above_it(bench: Benches) -> None:
    b = in_nine_hundred(bench)
    await b.ask("g", 10, 400)
    await admitted(b, "p", 5)
    assert len(await admitted(b, "g", 1)) == 0
    assert len(await admitted(b, "d", 2)) == 2


async def test_a_base_that_is_used_in_one_pool_does_not_stand_in_its_own_way_in_another(bench: Benches) -> None:
    b = in_nine_hundred(bench, short=POOL, long=POOL)
    for _ in range(3):
        await b.ask("g", 10, 100, pools=("long",))
    assert isinstance((await b.ask("g", 10, 400, pools=("short",)))[1], Admitted)
    assert isinstance((await b.ask("e", 10, 300, pools=("short",)))[1], Admitted)
    assert isinstance((await b.ask("d", 10, 200, pools=("short",)))[1], Admitted)


async def test_a_burst_in_one_pool_leaves_the_base_whole_in_another(bench: Benches) -> None:
    b = in_nine_hundred(bench, short=POOL, long=POOL)
    lease, _ = await b.ask("g", 10, 400, pools=("short",))
    await b.ask("e", 10, 400, pools=("long",))
    await b.settle(lease)
    assert isinstance((await b.ask("g", 10, 300, pools=("long",)))[1], Admitted)


async def test_where_too_few_servers_live_for_the_promises_nothing_is_given_above_a_base(bench: Benches) -> None:
    of = model(only=Vector(100_000, 10_000, 5))
    two = replace(of, pools=(replace(of.pools[0], endpoints=("http://127.0.0.1:1", "http://127.0.0.1:2")),))
    b = bench(two, *(entitlement(name, GUARANTEED, Vector(100, 300, 3), WIDE) for name in "gh"))
    assert len(await admitted(b, "g", 1, kv=301)) == 1
    await b.settle("lease-0")
    await b.set_pool("only", servers=1, elastic=Vector())
    assert [len(await admitted(b, name, 1, kv=kv)) for name, kv in (("g", 301), ("g", 300), ("h", 300))] == [0, 1, 1]


@pytest.mark.parametrize("divided", [False, True], ids=["before the first tick", "after it"])
async def test_a_share_that_is_used_in_one_pool_does_not_stand_in_its_own_way_in_another(
    bench: Benches, divided: bool
) -> None:
    b = in_nine_hundred(bench, short=POOL, long=POOL)
    if divided:
        await b.set_share("e", Vector(1000, 300, 2), Vector(1000, 900, 8))
        for pool in ("short", "long"):
            await b.set_pool(pool, servers=1, elastic=Vector(500, 150, 1))
    for _ in range(2):
        await b.ask("e", 10, 150, pools=("long",))
    assert isinstance((await b.ask("e", 10, 400, pools=("short",)))[1], Admitted)  # all beside both promises


async def test_a_share_above_which_one_asks_in_another_pool_leaves_that_of_others_there(bench: Benches) -> None:
    b = bench(
        model(short=TEN, long=TEN),
        entitlement("a", ELASTIC, Vector(1000, 5000, 5), WIDE),
        entitlement("b", ELASTIC, Vector(1000, 5000, 5), WIDE),
    )
    for name in "ab":
        await b.set_share(name, Vector(1000, 5000, 5), WIDE)
    await b.set_pool("short", servers=1, elastic=Vector(1000, 5000, 5))  # all of it b's
    await b.set_pool("long", servers=1, elastic=Vector(1000, 5000, 5))  # all of it a's
    for _ in range(5):
        await b.ask("a", 10, 1000, pools=("long",))
    answers = [(await b.ask("a", 10, 10, pools=("short",)))[1] for _ in range(7)]
    assert sum(isinstance(answer, Admitted) for answer in answers) == 5


async def test_a_borrowed_lease_that_the_server_lost_stops_nobody(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("g", GUARANTEED, Vector(100, 1000, 6)), entitlement("p", PREEMPTIBLE, WIDE))
    borrowed = await admitted(b, "p", 10)
    await b.ledger._client.hdel("tp3:{m}:leases", borrowed[-1])
    assert len(await admitted(b, "g", 1)) == 1
    assert await b.is_taken(borrowed[-2])


async def test_what_runs_counts_against_a_share_that_came_later(bench: Benches) -> None:
    b = bench(model(only=TEN), entitlement("p", PREEMPTIBLE, WIDE))
    await admitted(b, "p", 3)
    await b.set_share("p", Vector(1000, 30, 3), WIDE)
    await b.set_pool("only", servers=1, elastic=Vector(), surplus=Vector(1000, 8000, 8))
    assert len(await admitted(b, "p", 9)) == 2  # ten, less the five that others may still claim
