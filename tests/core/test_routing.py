from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.policy import Routing
from extproc.core.refusal import Reason, Refusal
from extproc.core.routing import candidates, near_limit
from tests.core.values import budget_of, model

TWO = model(8192, 65536)
THREE = model(4096, 16384, 65536)


def pools(budget: int, hopeful: int | None = None, *, spill: bool = True, threshold: int = 8192) -> object:
    of = model(8192, 65536, routing=Routing(threshold_tokens=threshold, spill=spill))
    return candidates(of, budget_of(budget, hopeful))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(pools(8192), ("p0", "p1"), id="at the threshold"),
        pytest.param(pools(8193), ("p1",), id="one above the threshold"),
        pytest.param(pools(8193, 8000), ("p1",), id="above by caution only: short might cut it"),
        pytest.param(pools(4097, threshold=4096), ("p1", "p0"), id="above a lower threshold: short can hold it"),
        pytest.param(pools(100, spill=False), ("p0",), id="no spilling from short"),
        pytest.param(pools(4097, threshold=4096, spill=False), ("p1",), id="no spilling from long"),
        pytest.param(pools(9000, threshold=60_000), ("p1",), id="a threshold above the pool's length"),
        pytest.param(pools(70_000, 60_000), ("p1",), id="too long by caution only: the longest tries"),
        pytest.param(pools(65_536), ("p1",), id="exactly the longest pool"),
    ],
)
def test_pools_in_order_of_preference(found: object, expected: tuple[str, ...]) -> None:
    assert found == expected


@pytest.mark.parametrize(("budget", "expected"), [(65_536, ("p0",)), (1, ("p0",)), (70_000, ("p0",))])
def test_a_single_pool_takes_what_may_fit_it_whatever_the_threshold(budget: int, expected: tuple[str, ...]) -> None:
    assert candidates(model(65_536), budget_of(budget, min(budget, 65_536))) == expected


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        pytest.param(4096, ("p0", "p1", "p2"), id="all can hold it"),
        pytest.param(4097, ("p1", "p2"), id="the middle one first"),
        pytest.param(16_384, ("p1", "p2"), id="all that the middle one can hold"),
        pytest.param(16_385, ("p2",), id="only the longest can hold it"),
    ],
)
def test_three_pools(budget: int, expected: tuple[str, ...]) -> None:
    assert candidates(THREE, budget_of(budget)) == expected


@pytest.mark.parametrize("hopeful", [65_537, 10**12])
def test_what_not_even_the_hopeful_estimate_fits_is_refused_for_good(hopeful: int) -> None:
    found = candidates(TWO, budget_of(hopeful, hopeful))
    assert isinstance(found, Refusal)
    assert (found.status, found.reason, found.retry_ms) == (400, Reason.CONTEXT_LENGTH_EXCEEDED, None)
    assert "65536 tokens" in found.message
    assert str(hopeful) in found.message


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        pytest.param(2000, ("p0", "p1", "p2"), id="the shortest one's own threshold"),
        pytest.param(2001, ("p1", "p2", "p0"), id="above it the next; the shortest can hold it and comes last"),
        pytest.param(9001, ("p2", "p1"), id="above the middle one's threshold"),
    ],
)
def test_every_pool_may_have_a_threshold_of_its_own(budget: int, expected: tuple[str, ...]) -> None:
    own = model(4096, 16384, 65536, routing=Routing(threshold_tokens=3000), thresholds=(2000, 9000))
    assert candidates(own, budget_of(budget)) == expected


def test_the_longest_sequence_is_routed_not_the_sum_of_all() -> None:
    many = replace(budget_of(50_000), sequence_budget=700, longest_likely=500)
    assert candidates(TWO, many) == ("p0", "p1")


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True),
    st.integers(1, 10**6),
    st.booleans(),
    st.integers(0, 2 * 10**6),
    st.floats(0, 1),
)
def test_no_pool_is_offered_that_might_cut_the_answer_while_another_would_not(
    lengths: list[int], threshold: int, spill: bool, budget: int, share: float
) -> None:
    of = model(*sorted(lengths), routing=Routing(threshold_tokens=threshold, spill=spill))
    expected = budget_of(budget, int(budget * share))
    found = candidates(of, expected)
    if isinstance(found, Refusal):
        assert expected.longest_likely > of.max_model_len
        return
    assert found
    assert len(set(found)) == len(found)
    longest = of.pools[-1].name
    assert all(of.pool(name).max_model_len >= budget or name == longest for name in found)
    assert spill or len(found) == 1


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_a_larger_budget_never_prefers_a_shorter_pool(one: int, other: int) -> None:
    smaller, larger = (candidates(THREE, budget_of(budget, 0)) for budget in sorted((one, other)))
    assert not isinstance(smaller, Refusal)
    assert not isinstance(larger, Refusal)
    assert smaller[0] <= larger[0]


@pytest.mark.parametrize(
    ("pool", "budget", "near"),
    [
        pytest.param("p0", 4096, False, id="half of its length"),
        pytest.param("p0", 4097, True, id="above half of its length"),
        pytest.param("p1", 60_000, False, id="no pool is longer than the last"),
    ],
)
def test_a_retry_is_worth_it_near_the_length_of_a_pool_that_is_not_the_last(pool: str, budget: int, near: bool) -> None:
    assert near_limit(TWO, pool, budget_of(budget)) is near
