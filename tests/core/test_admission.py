from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.admission import Buckets, PoolTerms, Promise, buckets, never_fits, pools_that_can_hold, terms_of
from extproc.core.policy import Entitlement, Model, Policy, Pool, ServiceClass, Sharing, Vector
from extproc.core.refusal import Reason
from tests.core.values import entitlement

POOL = Pool("short", ("http://a", "http://b"), 8192, Vector(500, 100_000, 10))
CAPS = Vector(250, 20_000, 8)


def terms(pool: Pool, entitlements: Sequence[Entitlement], sharing: Sharing | None = None) -> PoolTerms:
    model = Model("m", (pool,), sharing=sharing or Sharing())
    [found] = terms_of(model, Policy((model,), tuple(replace(e, model="m") for e in entitlements)))
    return found


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        pytest.param(entitlement(), Buckets(100, 1000, 0, 0), id="base only"),
        pytest.param(entitlement(caps=CAPS), Buckets(100, 1000, 150, 1500), id="base and burst"),
        pytest.param(entitlement(caps=CAPS, window_seconds=60), Buckets(100, 6000, 150, 9000), id="a longer window"),
        pytest.param(entitlement(base=Vector(), caps=CAPS), Buckets(0, 0, 250, 2500), id="nothing promised"),
    ],
)
def test_buckets_hold_the_base_and_what_is_above_it(of: Entitlement, expected: Buckets) -> None:
    assert buckets(of) == expected


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 3600))
def test_both_buckets_together_hold_the_window_of_the_cap(base: int, more: int, window: int) -> None:
    of = entitlement(base=Vector(base, 0, 0), caps=Vector(base + more, 0, 0), window_seconds=window)
    assert buckets(of).depth == (base + more) * window


def test_promises_are_summed_by_class_and_only_for_classes_that_have_one() -> None:
    every = [entitlement(name.value, name) for name in ServiceClass for _ in range(2 if name == "elastic" else 1)]
    found = terms(POOL, [replace(e, base=Vector()) if e.service_class.surplus else e for e in every])
    one = Promise(10_000, 4, 100, 1000)
    assert (found.dedicated, found.guaranteed, found.elastic) == (one, one, Promise(20_000, 8, 200, 2000))


def test_headroom_is_the_room_of_so_many_requests_at_full_batch() -> None:
    assert terms(POOL, [], Sharing(headroom_requests=3)).headroom == Vector(0, 30_000, 3)


def test_the_depth_of_a_pool_holds_every_promise_and_ten_seconds_beside() -> None:
    dedicated = entitlement("d", ServiceClass.DEDICATED)  # its rate is set aside: it is no part of this bucket
    found = terms(POOL, [entitlement(), entitlement("b", ServiceClass.ELASTIC), dedicated])
    assert (found.capacity, found.depth, found.free_depth) == (Vector(1000, 200_000, 20), 12_000, 10_000)


def test_a_slow_pool_is_deep_enough_for_its_longest_request() -> None:
    slow = replace(POOL, server_capacity=Vector(10, 100_000, 10))
    assert terms(slow, [entitlement()]).free_depth == 8192


@pytest.mark.parametrize(
    ("tokens", "kv_tokens", "reason"),
    [
        pytest.param(2500, 20_000, None, id="exactly the caps"),
        pytest.param(2501, 1, Reason.TOKENS_PER_SECOND, id="more than both buckets hold"),
        pytest.param(1, 20_001, Reason.KV_TOKENS, id="more than the cap of KV tokens"),
    ],
)
def test_what_could_never_fit_its_entitlement_is_named_by_unit(
    tokens: int, kv_tokens: int, reason: Reason | None
) -> None:
    assert never_fits(entitlement(caps=CAPS), tokens, kv_tokens) is reason


@pytest.mark.parametrize(
    ("tokens", "kv_tokens", "expected"),
    [
        pytest.param(1, 1, {"short", "long"}, id="any"),
        pytest.param(1, 100_000, {"short", "long"}, id="all of a pool's KV tokens"),
        pytest.param(1, 100_001, {"long"}, id="more KV tokens than the pool has"),
        pytest.param(8192, 1, {"short", "long"}, id="all that its bucket holds"),
        pytest.param(8193, 1, {"long"}, id="more than its bucket can hold"),
        pytest.param(10**9, 1, set(), id="more than any"),
    ],
)
def test_only_pools_whose_empty_servers_would_take_it_can_hold_it(
    tokens: int, kv_tokens: int, expected: set[str]
) -> None:
    short = Pool("short", ("http://a",), 8192, Vector(500, 100_000, 10))
    long = Pool("long", ("http://b",), 65_536, Vector(500, 500_000, 10))
    of = [terms(pool, []) for pool in (short, long)]
    spot = entitlement(service_class=ServiceClass.SPOT, base=Vector())
    assert pools_that_can_hold(spot, of, tokens, kv_tokens) == expected


@pytest.mark.parametrize(
    ("service_class", "kv_tokens", "held"),
    [
        pytest.param(ServiceClass.GUARANTEED, 6000, True, id="its own base"),
        pytest.param(ServiceClass.GUARANTEED, 10_000, True, id="more than its base, which is its own to use"),
        pytest.param(ServiceClass.GUARANTEED, 10_001, False, id="more than all"),
        pytest.param(ServiceClass.ELASTIC, 4000, True, id="elastic, beside the guaranteed base"),
        pytest.param(ServiceClass.ELASTIC, 4001, False, id="elastic, more than that"),
        pytest.param(ServiceClass.SPOT, 9000, True, id="spot borrows all but the head-room"),
        pytest.param(ServiceClass.SPOT, 9001, False, id="spot, more than that"),
        pytest.param(ServiceClass.PREEMPTIBLE, 9000, True, id="so does preemptible"),
    ],
)
def test_what_is_promised_to_others_can_only_be_borrowed(
    service_class: ServiceClass, kv_tokens: int, held: bool
) -> None:
    pool = Pool("only", ("http://a",), 8192, Vector(500, 10_000, 10))
    guaranteed = entitlement(name="g", service_class=ServiceClass.GUARANTEED, base=Vector(1, 6000, 1))
    elastic = entitlement(name="e", service_class=ServiceClass.ELASTIC, base=Vector(1, 3000, 1))
    asker = {ServiceClass.GUARANTEED: guaranteed, ServiceClass.ELASTIC: elastic}.get(
        service_class, entitlement(name="s", service_class=service_class, base=Vector())
    )
    assert (pools_that_can_hold(asker, [terms(pool, [guaranteed, elastic])], 1, kv_tokens) == {"only"}) is held


@pytest.mark.parametrize(("service_class", "held"), [(ServiceClass.DEDICATED, True), (ServiceClass.GUARANTEED, False)])
def test_what_dedicated_bases_fill_is_out_of_reach_for_a_guaranteed_base(
    service_class: ServiceClass, held: bool
) -> None:
    pool = Pool("only", ("http://a",), 8192, Vector(500, 10_000, 10))
    dedicated = entitlement(name="d", service_class=ServiceClass.DEDICATED, base=Vector(1, 10_000, 10))
    guaranteed = entitlement(name="g", base=Vector(1, 6000, 1))
    asker = dedicated if service_class is ServiceClass.DEDICATED else guaranteed
    assert (pools_that_can_hold(asker, [terms(pool, [dedicated, guaranteed])], 1, 6000) == {"only"}) is held


@pytest.mark.parametrize(("kv_tokens", "held"), [(4000, True), (4001, False)], ids=["beside it", "more than that"])
def test_where_nothing_is_lent_to_spot_a_guaranteed_base_is_out_of_its_reach(kv_tokens: int, held: bool) -> None:
    pool = Pool("only", ("http://a",), 8192, Vector(500, 10_000, 10))
    found = terms(pool, [entitlement(base=Vector(1, 6000, 1))], Sharing(lend_to_spot=False))
    spot = entitlement(name="s", service_class=ServiceClass.SPOT, base=Vector())
    assert (pools_that_can_hold(spot, [found], 1, kv_tokens) == {"only"}) is held


def test_a_pool_without_slots_can_hold_nothing() -> None:
    closed = replace(POOL, server_capacity=Vector(500, 100_000, 0))
    assert pools_that_can_hold(entitlement(), [terms(closed, [])], 1, 1) == set()
