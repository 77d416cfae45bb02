"""Max-min fairness by dominant share, and whole requests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.filling import DUE, Precedence, dominant, fill, whole
from extproc.core.seen import Column

CAPACITY = np.array([240.0, 16_000.0, 16.0])

amounts = st.one_of(st.just(0.0), st.floats(0.5, 1000))
rows = st.tuples(amounts, amounts, amounts, st.floats(0.1, 10))
rooms = st.tuples(*(st.just(0.0) | st.floats(1e-3, 1500) for _ in range(3)))


def filled(wanted: object, weight: object = None, held: object = None, room: object = CAPACITY) -> Column:
    rows_wanted = np.array(wanted, dtype=np.float64)
    count = len(rows_wanted)
    weights = np.ones(count) if weight is None else np.array(weight, dtype=np.float64)
    shares = np.zeros(count) if held is None else np.array(held, dtype=np.float64)
    return fill(rows_wanted, weights, shares, CAPACITY, np.array(room, dtype=np.float64))


@pytest.mark.parametrize(
    ("wanted", "weight", "expected"),
    [
        pytest.param([[75, 500, 5], [75, 500, 5]], None, [1, 1], id="room for all"),
        pytest.param([[0, 0, 32], [0, 0, 32]], None, [0.25, 0.25], id="equals get the same"),
        pytest.param([[0, 0, 32], [0, 0, 32]], [3, 1], [0.375, 0.125], id="by weight"),
        pytest.param([[0, 0, 2], [0, 0, 32]], None, [1, 14 / 32], id="who wants little gets it all"),
        pytest.param([[0, 0, 32], [0, 4000, 0]], None, [0.5, 1], id="who needs another unit goes on"),
        # The example of the DRF paper: 9 CPUs and 18 GB; tasks of <1 CPU, 4 GB> and <3 CPUs, 1 GB>: 3 and 2 of them.
        pytest.param([[26.6667, 3555.5556, 0], [80, 888.8889, 0]], None, [1, 1], id="one task each"),
        pytest.param([[266.667, 35555.556, 0], [800, 8888.889, 0]], None, [0.3, 0.2], id="DRF's own example"),
        pytest.param([[0, 0, 0], [0, 0, 32]], None, [0, 0.5], id="nothing wanted"),
    ],
)
def test_dominant_shares_rise_together(wanted: object, weight: object, expected: list[float]) -> None:
    assert filled(wanted, weight) == pytest.approx(expected, rel=1e-4)


def test_who_holds_more_already_waits_for_the_others() -> None:
    assert filled([[0, 0, 8], [0, 0, 8]], held=[0.5, 0.0], room=(240, 16_000, 10)) == pytest.approx([0.25, 1.0])


def test_who_needs_a_unit_that_is_gone_gets_nothing_and_takes_nothing() -> None:
    assert filled([[10, 0, 4], [0, 0, 4]], room=(0, 16_000, 16)) == pytest.approx([0.0, 1.0])


def test_no_claims_are_no_trouble() -> None:
    assert filled(np.zeros((0, 3))).shape == (0,)


@given(st.lists(rows, min_size=1, max_size=12), rooms)
def test_filling_is_feasible_and_wastes_nothing_and_is_max_min_fair(
    claims: list[tuple[float, float, float, float]], room: tuple[float, float, float]
) -> None:
    table = np.array(claims)
    wanted, weight, space = table[:, :3], table[:, 3], np.array(room)
    capacity = np.maximum(space, 1.0)
    fraction = fill(wanted, weight, np.zeros(len(wanted)), capacity, space)
    drawn = fraction @ wanted
    assert ((fraction >= 0) & (fraction <= 1)).all()
    assert (drawn <= space * (1 + 1e-6)).all()
    full = drawn >= space * (1 - 1e-6)
    level = fraction * dominant(wanted, capacity) / weight
    for i in np.flatnonzero((fraction < 1 - 1e-6) & wanted.any(axis=1)):
        # He needs a full unit of which nobody has more, for his weight, than he has: no more for him without less for
        # one who has no more than he.
        bottlenecks = np.flatnonzero(full & (wanted[i] > 0))
        assert any((level[(wanted[:, u] > 0)] <= level[i] * (1 + 1e-4) + 1e-9).all() for u in bottlenecks)


@given(st.lists(rows, min_size=1, max_size=8), rooms, st.randoms(use_true_random=False))
def test_filling_does_not_depend_on_the_order(
    claims: list[tuple[float, float, float, float]], room: tuple[float, float, float], random: object
) -> None:
    table = np.array(claims)
    order = np.arange(len(table))
    random.shuffle(order)  # type: ignore[attr-defined]
    one, other = (
        fill(t[:, :3], t[:, 3], np.zeros(len(t)), CAPACITY, np.minimum(room, CAPACITY)) for t in (table, table[order])
    )
    assert other == pytest.approx(one[order], abs=1e-9)


def rounded(
    requests: list[float], kv_each: list[float], room: tuple[float, float], waited: list[float] | None = None
) -> list[list[float]]:
    count = len(requests)
    precedence = Precedence(np.array(waited or [0.0] * count), np.ones(count), np.arange(count) / count)
    result: list[list[float]] = whole(np.array(requests), np.array(kv_each), np.array(room), precedence).tolist()
    return result


@pytest.mark.parametrize(
    ("requests", "kv_each", "room", "waited", "expected"),
    [
        pytest.param([5.4, 2.6], [100, 100], (10_000, 8), None, [5, 3], id="the largest remainder"),
        pytest.param([5.6, 2.4], [100, 100], (10_000, 8), [0, 0.5], [5, 3], id="who has waited goes first"),
        pytest.param([4.0, 3.9999999999], [100, 100], (10_000, 8), None, [4, 4], id="the last digit of a sum"),
        pytest.param([0.5, 0.5], [100, 100], (10_000, 1), [0.1, 0.2], [0, 1], id="one for two"),
        pytest.param([0.5, 0.5], [900, 100], (500, 1), None, [0, 1], id="one that does not fit blocks nobody"),
        pytest.param([0.3, 12.0], [900, 60], (1000, 16), None, [0, 12], id="a large request finds no room"),
        pytest.param([0.3, 12.0], [900, 60], (1000, 16), [DUE, 0], [1, 1], id="unless it has waited"),
        pytest.param([0.0, 1.0], [0, 100], (100, 1), [9, 0], [0, 1], id="who wants nothing gets nothing"),
    ],
)
def test_whole_requests(
    requests: list[float], kv_each: list[float], room: tuple[float, float], waited: list[float], expected: list[int]
) -> None:
    assert [slots for _, slots in rounded(requests, kv_each, room, waited)] == expected


def test_kv_tokens_are_whole_and_enough_for_the_requests() -> None:
    assert rounded([2.0, 1.0], [100.5, 33.3], (1000, 3)) == [[201, 2], [34, 1]]


def test_kv_tokens_are_not_rounded_up_beyond_the_room() -> None:
    assert sorted(rounded([1.0, 1.0], [100.5, 100.5], (201, 2))) == [[100, 1], [101, 1]]


parcels = st.lists(st.tuples(st.floats(0, 20), st.floats(1, 500), st.floats(0, 13)), min_size=1, max_size=12)


@given(parcels, st.integers(1, 40), st.integers(1, 4000))
def test_whole_requests_fit_and_leave_less_than_one_that_is_wanted(
    claims: list[tuple[float, float, float]], slots: int, kv_tokens: int
) -> None:
    requests, kv_each, waited = np.array(claims).T
    shrink = min(1.0, slots / max(1e-9, requests.sum()), kv_tokens / max(1e-9, float(requests @ kv_each)))
    requests = requests * shrink
    precedence = Precedence(waited, np.ones(len(requests)), np.linspace(0, 0.9, len(requests)))
    result = whole(requests, kv_each, np.array([kv_tokens, slots], dtype=np.float64), precedence)
    assert (result == np.floor(result)).all()
    assert (result.sum(axis=0) <= [kv_tokens, slots]).all()
    assert (result[:, 1] <= np.ceil(requests)).all()
    lacking = (requests > 1e-6) & (result[:, 1] < np.ceil(requests - 1e-6))
    used_kv = float(result[:, 1] @ kv_each)
    if lacking.any() and result[:, 1].sum() < slots:
        short_by_one = lacking & (result[:, 1] >= np.floor(requests))
        assert (used_kv + kv_each[short_by_one] > kv_tokens - 1e-3).all()
