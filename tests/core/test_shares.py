"""How a pool is divided: what is promised, what is shared, what is lent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.policy import Entitlement, Model, Pool, ServiceClass, Sharing, Vector
from extproc.core.seen import Column, Seen, Shares
from extproc.core.terms import terms
from extproc.core.tick import tick
from tests.core.closed_loop import nothing_before

SERVER = Vector(240, 16_000, 16)
POOL = Pool("short", ("http://a",), 8192, SERVER)
MODEL = Model("m", (POOL,))
TWO_POOLS = Model("m", (POOL, replace(POOL, name="long", max_model_len=65_536)))
UNLIMITED = Vector(240, 16_000, 16)
NONE = Vector()

DEDICATED, GUARANTEED, ELASTIC, SPOT, PREEMPTIBLE = ServiceClass
KV = 1000  # tokens of one request


def part(service_class: ServiceClass, slots: int, *, caps: Vector = UNLIMITED, name: str = "") -> Entitlement:
    """An entitlement to so many slots, and as much of the other units."""
    base = Vector(15 * slots, KV * slots, slots)
    return Entitlement(name or f"{service_class.value}-{slots}", "m", service_class, base=base, caps=caps)


def seen(in_use: object, unmet: object, live: tuple[int, ...] = (1,), kv: float = KV) -> Seen:
    """Requests, (entitlements,) for one pool or (entitlements, pools), each of so many KV tokens."""
    held, wanted = (np.array(column, dtype=np.float64).reshape(-1, len(live)) for column in (in_use, unmet))
    none = np.zeros(len(held))
    return Seen(
        at_ms=1_000_000,
        in_use=np.stack((held * kv, held), axis=-1),
        unmet=np.stack((wanted * kv, wanted), axis=-1),
        asked=none,
        served=none,
        standing=nothing_before(len(held), len(live)),
        live=live,
    )


def divided(parts: list[Entitlement], in_use: object, unmet: object, model: Model = MODEL, **rest: object) -> Shares:
    for number, one in enumerate(parts):
        parts[number] = replace(one, name=f"{number}-{one.name}")
    return tick(terms(model, parts), seen(in_use, unmet, **rest))  # type: ignore[arg-type]


def slots(shares: Shares) -> list[float]:
    result: list[float] = shares.share[:, 2].tolist()
    return result


@pytest.mark.parametrize(
    ("parts", "in_use", "unmet", "expected"),
    [
        pytest.param([part(ELASTIC, 5), part(ELASTIC, 5)], [5, 5], [0, 0], [5, 5], id="demand is met"),
        pytest.param([part(ELASTIC, 12), part(ELASTIC, 12)], [0, 0], [20, 20], [8, 8], id="scarcity is shared"),
        pytest.param([part(ELASTIC, 12), part(ELASTIC, 12)], [16, 0], [0, 20], [8, 8], id="whoever holds it"),
        pytest.param([part(ELASTIC, 5), part(ELASTIC, 5)], [0, 0], [20, 2], [14, 2], id="who wants little gets it"),
        pytest.param([part(ELASTIC, 5), part(ELASTIC, 5)], [3, 0], [20, 0], [16, 0], id="the idle hold nothing back"),
        pytest.param([part(ELASTIC, 10), part(ELASTIC, 2)], [0, 0], [20, 20], [10, 6], id="bases first, then alike"),
        pytest.param([part(GUARANTEED, 6), part(ELASTIC, 5)], [0, 0], [0, 20], [6, 10], id="a promise is kept free"),
        pytest.param([part(GUARANTEED, 6), part(ELASTIC, 5)], [6, 0], [20, 20], [11, 5], id="above it all are alike"),
        pytest.param([part(DEDICATED, 6), part(SPOT, 0)], [0, 0], [0, 20], [6, 10], id="a dedicated base is not lent"),
        pytest.param([part(GUARANTEED, 6), part(SPOT, 0)], [0, 0], [0, 20], [6, 15], id="a guaranteed one is"),
        pytest.param([part(GUARANTEED, 6), part(SPOT, 0)], [4, 0], [0, 20], [6, 11], id="as far as it is idle"),
        pytest.param([part(ELASTIC, 2), part(SPOT, 0)], [0, 0], [16, 20], [16, 0], id="spot has what elastic leaves"),
        pytest.param([part(SPOT, 0), part(PREEMPTIBLE, 0)], [0, 0], [20, 20], [11, 5], id="spot weighs twice as much"),
    ],
)
def test_slots_are_divided(parts: list[Entitlement], in_use: list[int], unmet: list[int], expected: list[int]) -> None:
    assert slots(divided(list(parts), in_use, unmet)) == expected


def test_spot_does_not_borrow_where_only_preemptible_may() -> None:
    model = replace(MODEL, sharing=Sharing(lend_to_spot=False))
    parts = [part(GUARANTEED, 6), part(SPOT, 0), part(PREEMPTIBLE, 0)]
    of_spot, of_preemptible = slots(divided(parts, [0, 0, 0], [0, 20, 20], model))[1:]
    assert (of_spot, of_spot + of_preemptible) == (7, 15)


def test_headroom_is_not_lent() -> None:
    model = replace(MODEL, sharing=Sharing(headroom_requests=3))
    assert slots(divided([part(GUARANTEED, 6), part(SPOT, 0)], [0, 0], [0, 20], model))[1] == 13


def test_a_pool_that_lost_servers_keeps_its_promises_first() -> None:
    shares = divided([part(GUARANTEED, 6), part(ELASTIC, 5), part(SPOT, 0)], [0, 5, 0], [20, 0, 20], live=(0,))
    assert slots(shares) == [6, 0, 0]


def test_a_base_is_split_between_pools_by_demand() -> None:
    """Three of its four slots count in the short pool, where the other's base takes the rest."""
    shares = divided(
        [part(ELASTIC, 4), part(ELASTIC, 16)], [[0, 0], [0, 0]], [[12, 4], [16, 0]], TWO_POOLS, live=(1, 1)
    )
    assert slots(shares) == [3 + 4, 13]


def test_every_promise_stands_in_every_pool() -> None:
    shares = divided(
        [part(GUARANTEED, 6), part(ELASTIC, 5)], [[6, 0], [0, 0]], [[0, 0], [20, 20]], TWO_POOLS, live=(1, 1)
    )
    assert [pool.elastic[2] for pool in shares.pools] <= [10, 10]


def test_one_request_has_its_kv_tokens() -> None:
    parts = [part(ELASTIC, 2) for _ in range(20)]
    shares = divided(parts, [0] * 20, [1] * 20)
    assert sorted(shares.share[:, 2]) == [0] * 4 + [1] * 16
    assert (shares.share[:, 1] == KV * shares.share[:, 2]).all()


def test_a_large_request_within_the_burst_has_its_kv_tokens() -> None:
    shares = divided([part(ELASTIC, 2)], [0], [1], kv=7000)
    assert shares.share[0, 1:].tolist() == [7000, 1]


@pytest.mark.parametrize(
    ("parts", "in_use", "unmet", "expected"),
    [
        pytest.param([part(ELASTIC, 5), part(ELASTIC, 5)], [2, 5], [0, 0], [11, 14], id="what nobody claims"),
        pytest.param([part(ELASTIC, 5), part(ELASTIC, 5)], [1, 0], [0, 30], [5, 15], id="the base at least"),
        pytest.param([part(GUARANTEED, 5), part(ELASTIC, 5)], [0, 0], [0, 0], [16, 11], id="beside promises"),
        pytest.param(
            [part(GUARANTEED, 5), part(SPOT, 0)], [0, 0], [0, 0], [16, 16], id="spot, whose room claims bound"
        ),
        pytest.param([part(ELASTIC, 5, caps=Vector(90, 6000, 6))], [0], [0], [6], id="the configured burst at most"),
        pytest.param([part(ELASTIC, 5), part(SPOT, 0)], [16, 0], [9, 20], [16, 16], id="spot in a full pool"),
    ],
)
def test_a_cap_is_the_share_and_what_nobody_claims(
    parts: list[Entitlement], in_use: list[int], unmet: list[int], expected: list[int]
) -> None:
    assert divided(list(parts), in_use, unmet).cap[:, 2].tolist() == expected


def test_a_rate_that_nobody_claims_fills_an_idle_bucket() -> None:
    assert divided([part(ELASTIC, 5)], [0], [0]).share[0].tolist() == [75, 0, 0]


def test_a_burst_that_is_left_counts_whole_requests_over_all_pools() -> None:
    parts = [part(ELASTIC, 5, caps=Vector(75, 5_000, 5))]
    assert slots(divided(parts, [[0, 0]], [[3, 3]], TWO_POOLS, live=(1, 1))) == [5]


def with_rates(now: Seen, asked: list[float], served: list[float]) -> Seen:
    return replace(now, standing=replace(now.standing, asked_rate=np.array(asked), served_rate=np.array(served)))


def test_a_rate_grows_with_the_requests_that_wait() -> None:
    now = with_rates(seen([2], [3]), asked=[30.0], served=[30.0])
    assert tick(terms(MODEL, [part(ELASTIC, 1)]), now).share[0].tolist() == [75, 5000, 5]


def test_who_has_not_all_of_his_base_in_slots_gets_no_rate_above_it() -> None:
    now = with_rates(seen([0, 0], [16, 16]), asked=[240.0, 15.0], served=[0.0, 0.0])
    parts = [replace(part(ELASTIC, 16), name=name, base=Vector(15, 16_000, 16)) for name in "ab"]
    assert tick(terms(MODEL, parts), now).share[0, 0] <= 15


requests = st.integers(0, 40)
vectors = st.builds(Vector, st.integers(0, 100), st.integers(0, 8000), st.integers(0, 6))
claimants = st.tuples(
    st.sampled_from(ServiceClass), vectors, vectors, st.tuples(*(requests,) * 4), st.integers(1, 3000)
)
crowds = st.lists(claimants, min_size=1, max_size=10)
servers = st.tuples(st.integers(0, 3), st.integers(0, 3))
WIDE = Model("m", tuple(replace(pool, endpoints=("http://a",) * 3) for pool in TWO_POOLS.pools))

Crowd = list[tuple[ServiceClass, Vector, Vector, tuple[int, int, int, int], int]]


def crowded(crowd: Crowd, live: tuple[int, int], model: Model = WIDE) -> tuple[list[Entitlement], Seen, Shares]:
    parts = []
    for number, (service_class, base, burst, _, _) in enumerate(crowd):
        own = NONE if service_class.surplus else base
        parts.append(Entitlement(f"e{number}", "m", service_class, base=own, caps=own + burst))
    counts = np.array([counts for *_, counts, _ in crowd], dtype=np.float64)
    kv = np.array([[kv] for *_, kv in crowd], dtype=np.float64)
    now = seen(counts[:, :2], counts[:, 2:], live)
    rates = np.array([float(base.tokens_per_second) for _, base, *_ in crowd])
    now = replace(
        now,
        in_use=now.in_use / [KV, 1] * np.dstack((kv, np.ones_like(kv))),
        unmet=now.unmet / [KV, 1] * np.dstack((kv, np.ones_like(kv))),
        standing=replace(now.standing, asked_rate=rates, served_rate=rates / 2, debt=np.linspace(-1, 1, len(crowd))),
    )
    return parts, now, tick(terms(model, parts), now)


def promised(parts: list[Entitlement], *classes: ServiceClass) -> Column:
    total = sum((one.base for one in parts if one.service_class in classes), NONE)
    return np.array([total.tokens_per_second, total.kv_tokens, total.concurrency], dtype=np.float64)


@given(crowds, servers)
def test_shares_never_exceed_a_pool(crowd: Crowd, live: tuple[int, int]) -> None:
    parts, _, shares = crowded(crowd, live)
    for pool, count in zip(shares.pools, live, strict=True):
        capacity = np.array([240.0, 16_000.0, 16.0]) * count
        beside = np.maximum(0.0, capacity - promised(parts, DEDICATED, GUARANTEED))
        assert (pool.elastic <= beside + 1e-6).all()
        kept = np.maximum(0.0, capacity - promised(parts, DEDICATED))
        assert (pool.elastic + pool.surplus <= kept + 1e-6).all()


@given(crowds, servers)
def test_shares_and_caps_stay_between_base_and_burst(crowd: Crowd, live: tuple[int, int]) -> None:
    parts, _, shares = crowded(crowd, live)
    of = terms(WIDE, parts)
    assert ((shares.cap >= of.base) & (shares.cap <= of.caps) & (shares.share <= shares.cap + 1e-9)).all()
    assert (shares.share[of.promised] >= of.base[of.promised]).all()
    assert (shares.weight > 0).all()
    assert (np.abs(shares.standing.debt) <= 1).all()
    assert (shares.standing.debt[~of.elastic] == 0).all()
    assert (shares.share[:, 1:] == np.floor(shares.share[:, 1:])).all()
    assert (shares.cap[:, 1:] == np.floor(shares.cap[:, 1:])).all()


@given(crowds, servers, st.randoms(use_true_random=False))
def test_shares_do_not_depend_on_the_order_of_entitlements(crowd: Crowd, live: tuple[int, int], random: object) -> None:
    parts, now, shares = crowded(crowd, live)
    order = list(range(len(parts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    before = replace(
        now.standing,
        debt=now.standing.debt[order],
        asked_rate=now.standing.asked_rate[order],
        served_rate=now.standing.served_rate[order],
    )
    other = replace(now, in_use=now.in_use[order], unmet=now.unmet[order], standing=before)
    again = tick(terms(WIDE, [parts[i] for i in order]), other)
    assert again.share == pytest.approx(shares.share[order], rel=1e-6, abs=1e-6)
    assert again.cap == pytest.approx(shares.cap[order], rel=1e-6, abs=1e-6)


@given(crowds, servers)
def test_elastic_demand_is_met_or_a_unit_is_full_up_to_one_request(crowd: Crowd, live: tuple[int, int]) -> None:
    """One pool, where every request takes the same: what is left over is less than one of them."""
    alike = [
        (one, base, Vector(1000, 100_000, 50), (*counts[:1], 0, *counts[2:3], 0), 700)
        for one, base, _, counts, _ in crowd
    ]
    parts, now, shares = crowded(alike, (live[0], 0))
    of = terms(WIDE, parts)
    wanted = np.minimum((now.in_use + now.unmet)[:, 0, 1], of.caps[:, 2])
    lacking = of.elastic & (shares.share[:, 2] < np.maximum(wanted, 0)) & (now.in_use[:, 0, 1] <= shares.share[:, 2])
    capacity = np.array([240.0, 16_000.0, 16.0]) * live[0]
    given_above = np.maximum(0.0, shares.share - of.base)[of.promised].sum(axis=0)
    free = np.maximum(0.0, capacity - of.promises) - shares.pools[0].elastic - given_above
    rate_short = free[0] <= 1e-3 * max(1.0, capacity[0])
    if lacking.any() and not rate_short:
        assert free[1] < 700 + 1 or free[2] < 1
