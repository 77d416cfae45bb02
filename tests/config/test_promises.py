"""What pools can honour of dedicated and guaranteed bases, and how many servers would honour all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from extproc.config.promises import Promised
from extproc.core.policy import UNITS, Pool, ServiceClass, Vector

amounts = st.integers(0, 200)
units = st.sampled_from(UNITS)
fleets = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 60)), min_size=1, max_size=3).map(
    lambda sizes: tuple(pool(number, servers, one) for number, (servers, one) in enumerate(sizes))
)


def pool(number: int, servers: int, one: int) -> Pool:
    return Pool(f"p{number}", ("sim://",) * servers, 8192 * (number + 1), Vector(one, one, one))


SHORT, LONG = pool(0, 1, 64), pool(1, 1, 16)


@pytest.mark.parametrize(
    ("unit", "dedicated", "guaranteed", "expected"),
    [
        ("concurrency", 0, 80, 80),
        ("concurrency", 80, 0, 80),
        ("concurrency", 10, 60, 70),
        ("concurrency", 20, 50, 64),
        ("kv_tokens", 20, 50, 64),
        ("tokens_per_second", 20, 50, 80),
        ("concurrency", 70, 1, 70),
    ],
    ids=[
        "guaranteed alone have all",
        "so have dedicated alone",
        "dedicated ones are kept free in each",
        "a pool that they fill gives guaranteed ones nothing",
        "tokens in the cache likewise",
        "rates are not kept pool by pool",
        "beside dedicated ones larger than any pool there is no room",
    ],
)
def test_what_pools_can_honour(unit: str, dedicated: int, guaranteed: int, expected: int) -> None:
    assert Promised(unit, dedicated, guaranteed).honoured_by((SHORT, LONG)) == expected


@given(units, amounts, amounts, fleets)
def test_no_more_is_honoured_than_the_capacity_and_in_one_pool_all_of_it(
    unit: str, dedicated: int, guaranteed: int, pools: tuple[Pool, ...]
) -> None:
    promised = Promised(unit, dedicated, guaranteed)
    capacities = [getattr(pool.capacity, unit) for pool in pools]
    assert promised.honoured_by(pools) <= sum(capacities)
    assert (promised.total <= promised.honoured_by(pools[:1])) == (promised.total <= capacities[0])


@given(units, amounts, amounts, fleets, st.data())
def test_the_servers_asked_for_are_enough_and_one_fewer_is_not(
    unit: str, dedicated: int, guaranteed: int, pools: tuple[Pool, ...], data: st.DataObject
) -> None:
    promised, place = Promised(unit, dedicated, guaranteed), data.draw(st.integers(0, len(pools) - 1))

    def honoured(servers: int) -> bool:
        scaled = replace(pools[place], endpoints=("sim://",) * servers)
        return promised.total <= promised.honoured_by((*pools[:place], scaled, *pools[place + 1 :]))

    assume(not honoured(len(pools[place].endpoints)))
    servers = promised.servers_for(pools[place], pools)
    assert honoured(servers)
    assert not honoured(servers - 1)


def test_only_the_promised_classes_count() -> None:
    bases = [(one, 10**number) for number, one in enumerate(ServiceClass)]
    assert Promised.sum_of("concurrency", bases) == Promised("concurrency", dedicated=1, guaranteed=10)
