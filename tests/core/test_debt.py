from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.debt import decayed, shortfall, smoothed, waited

BASE = (100.0, 10_000.0, 10.0)
Units = tuple[float, float, float]
amounts = st.just(0.0) | st.floats(1e-3, 1e6)
vectors = st.tuples(amounts, amounts, amounts)
parts = st.floats(-1, 1)


def missing(demand: Units, use: Units, base: Units = BASE) -> float:
    return float(shortfall(*(np.array([column], dtype=np.float64) for column in (demand, use, base))).missing[0])


@pytest.mark.parametrize(
    ("demand", "use", "expected"),
    [
        pytest.param((100, 10_000, 10), (100, 10_000, 10), 0.0, id="served"),
        pytest.param((100, 10_000, 10), (60, 6_000, 6), 0.4, id="squeezed"),
        pytest.param((0, 0, 0), (0, 0, 0), 0.0, id="idle"),
        pytest.param((20, 2_000, 2), (0, 0, 0), 0.2, id="little wanted, nothing served"),
        pytest.param((500, 50_000, 50), (100, 10_000, 10), 0.0, id="a flood above the base"),
        pytest.param((500, 50_000, 50), (0, 0, 0), 1.0, id="a flood that gets nothing"),
        pytest.param((100, 15_000, 15), (100, 15_000, 15), -0.5, id="more than the base"),
        pytest.param((9_000, 1_000, 1), (100, 1_000, 1), 0.0, id="refused for a rate that is used up"),
        pytest.param((40, 20_000, 8), (40, 10_000, 4), 0.0, id="KV tokens used up by few requests"),
        pytest.param((40, 10_000, 2), (20, 5_000, 1), 0.5, id="counted where it presses on its base most"),
        pytest.param((300, 1_000, 1), (300, 1_000, 1), 0.0, id="a lump of a rate"),
    ],
)
def test_a_shortfall_is_what_is_missing_of_the_base(demand: Units, use: Units, expected: float) -> None:
    assert missing(demand, use) == pytest.approx(expected)


def test_without_a_base_there_is_no_shortfall() -> None:
    assert missing(BASE, (0, 0, 0), base=(0, 0, 0)) == 0.0


@given(vectors, vectors, vectors)
def test_a_shortfall_is_bounded_and_never_more_than_is_entitled(demand: Units, use: Units, base: Units) -> None:
    found = shortfall(*(np.array([column], dtype=np.float64) for column in (demand, use, base)))
    assert -1 <= found.missing[0] <= found.entitled[0] <= 1


@given(vectors, vectors, vectors)
def test_asking_for_more_than_the_base_earns_no_more(demand: Units, use: Units, more: Units) -> None:
    flood = (BASE[0] + more[0], BASE[1] + more[1], BASE[2] + more[2])
    assert missing(flood, use) == missing(BASE, use) >= missing(demand, use)


@given(vectors, st.floats(1.0, 1e3))
def test_a_shortfall_knows_no_scale(demand: Units, scale: float) -> None:
    half = np.array(demand) / 2
    vectors_of = [np.array([vector]) for vector in (demand, half, BASE)]
    one, other = shortfall(*vectors_of), shortfall(*(scale * vector for vector in vectors_of))
    assert other.missing == pytest.approx(one.missing, abs=1e-6)


@given(parts, parts, st.floats(0, 1e4))
def test_a_debt_moves_towards_what_is_missing(previous: float, short: float, seconds: float) -> None:
    after = float(decayed(np.array([previous]), np.array([short]), seconds, 30.0)[0])
    assert min(previous, short) - 1e-12 <= after <= max(previous, short) + 1e-12


@given(parts, parts, parts, st.floats(0, 100))
def test_a_debt_is_monotone(previous: float, one: float, other: float, seconds: float) -> None:
    low, high = decayed(np.full(2, previous), np.sort([one, other]), seconds, 30.0)
    assert low <= high


def test_full_debt_is_gone_within_three_time_constants() -> None:
    debt = np.ones(1)
    for _ in range(90):
        debt = decayed(debt, np.zeros(1), 1.0, 30.0)
    assert 0 < debt[0] < 0.05


def test_ticks_twice_as_often_make_the_same_debt() -> None:
    debt = np.zeros(1)
    for _ in range(2):
        debt = decayed(debt, np.ones(1), 0.5, 30.0)
    assert debt == pytest.approx(decayed(np.zeros(1), np.ones(1), 1.0, 30.0))


def test_a_rate_is_found_from_a_counter() -> None:
    rate = np.zeros(1)
    for _ in range(100):
        rate = smoothed(rate, np.array([240.0]), 1.0, 10.0)
    assert rate[0] == pytest.approx(240.0, rel=1e-3)


@pytest.mark.parametrize(
    ("growth", "seconds", "expected"),
    [
        pytest.param(-1e9, 1.0, 0.0, id="a counter that was lost makes no negative rate"),
        pytest.param(1e9, 0.0, 50.0, id="no time has passed"),
    ],
)
def test_a_rate_survives_what_counters_do(growth: float, seconds: float, expected: float) -> None:
    assert smoothed(np.array([50.0]), np.array([growth]), seconds, 10.0)[0] == expected


@given(st.floats(0.01, 1), st.floats(0, 300))
def test_who_is_never_served_waits_as_long_as_he_did(entitled: float, seconds: float) -> None:
    debt = decayed(np.zeros(1), np.array([entitled]), seconds, 30.0)
    assert waited(debt, np.array([entitled]))[0] == pytest.approx(seconds / 30.0, abs=1e-2)


@given(parts, st.just(0.0) | st.floats(1e-6, 1))
def test_what_was_waited_is_finite(debt: float, entitled: float) -> None:
    assert 0 <= waited(np.array([debt]), np.array([entitled]))[0] < math.log(1e6) + 1e-6
