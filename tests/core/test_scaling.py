"""How many servers a pool should have, and how rarely that changes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.policy import Pool, Scaling, Vector
from extproc.core.scaling import SLOTS, History, desired, needed

POOL = Pool("short", ("http://127.0.0.1:1",), 8192, Vector(1000, 100_000, 10))
SCALING = Scaling(target_utilisation=0.8, scale_down_seconds=300)
NOTHING = (0.0, 0.0, 0.0)
TICK_MS = 1000
WINDOW_MS = 300_000

Units = tuple[float, float, float]
amounts = st.floats(0, 1e6, allow_nan=False)
vectors = st.tuples(amounts, amounts, amounts)
whole = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
utilisations = st.floats(0.05, 1.0)
servers = st.builds(Vector, st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**6))


def count(promised: Units, demanded: Units, pool: Pool = POOL, scaling: Scaling = SCALING) -> int:
    return needed(pool, scaling, np.array(promised), np.array(demanded))


def answers(demands: Sequence[float], tick_ms: int = TICK_MS, history: History = ()) -> list[int]:
    """What is asked for tick by tick while so many requests are in demand."""
    result = []
    for tick, requests in enumerate(demands):
        servers, history = desired(
            POOL, SCALING, np.array(NOTHING), np.array((0.0, 0.0, requests)), history, tick * tick_ms
        )
        result.append(servers)
    return result


@pytest.mark.parametrize(
    ("promised", "demanded", "expected"),
    [
        (NOTHING, NOTHING, 0),
        ((1, 0, 0), NOTHING, 1),
        ((1000, 0, 0), NOTHING, 1),
        ((1001, 0, 0), NOTHING, 2),
        ((0, 100_001, 0), NOTHING, 2),
        ((1000, 250_000, 10), NOTHING, 3),
        (NOTHING, (0, 0, 8), 1),
        (NOTHING, (0, 0, 9), 2),
        ((0, 0, 10), (0, 0, 8), 2),
        ((0, 0, 5), (0, 0, 4.1), 2),
        (NOTHING, (1e-7, 0, 0), 0),
    ],
    ids=[
        "nothing",
        "any promise",
        "a full server",
        "one more",
        "the scarcest unit decides",
        "the largest need of all units",
        "the target of a server",
        "above the target",
        "promises are no demand: they fill a server",
        "promise and demand share a server's unit",
        "the tail of an average",
    ],
)
def test_servers_needed(promised: Units, demanded: Units, expected: int) -> None:
    assert count(promised, demanded) == expected


@given(whole, vectors, servers, utilisations)
def test_never_below_what_is_promised(promised: Units, demanded: Units, server: Vector, utilisation: float) -> None:
    result = server.times(count(promised, demanded, replace(POOL, server_capacity=server), Scaling(utilisation)))
    assert result.tokens_per_second >= promised[0]
    assert result.kv_tokens >= promised[1]
    assert result.concurrency >= promised[2]


@given(vectors, vectors, vectors, vectors)
def test_more_promised_or_in_demand_never_needs_fewer(
    promised: Units, demanded: Units, further: Units, further_demand: Units
) -> None:
    more = tuple(np.add(promised, further)), tuple(np.add(demanded, further_demand))
    assert count(*more) >= count(promised, demanded)


@given(vectors, vectors, servers, servers, utilisations, utilisations)
def test_larger_servers_or_a_higher_target_never_need_more(
    promised: Units, demanded: Units, server: Vector, further: Vector, one: float, other: float
) -> None:
    small = count(promised, demanded, replace(POOL, server_capacity=server), Scaling(min(one, other)))
    large = count(promised, demanded, replace(POOL, server_capacity=server + further), Scaling(max(one, other)))
    assert large <= small


def test_more_is_asked_for_at_once() -> None:
    assert answers([8, 80]) == [1, 10]


def test_fewer_are_asked_for_when_they_were_enough_for_the_whole_window() -> None:
    ticks = WINDOW_MS // TICK_MS
    slot = ticks // SLOTS
    result = answers([80] + [8] * (ticks + slot))
    assert set(result[:ticks]) == {10}
    assert result[-1] == 1


def test_the_fall_stops_at_the_most_that_was_needed_within_the_window() -> None:
    assert answers([80, 40, 8], tick_ms=100_000) == [10, 10, 10]
    assert answers([80, 40, 8, 8, 8, 8], tick_ms=100_000) == [10, 10, 10, 5, 1, 1]


def test_without_a_window_the_need_of_the_moment_decides() -> None:
    history: History = ()
    for requests, expected in ((80, 10), (8, 1), (16, 2), (0, 0)):
        result, history = desired(
            POOL, replace(SCALING, scale_down_seconds=0), np.array(NOTHING), np.array((0, 0, requests)), history, 1000
        )
        assert result == expected
        assert len(history) == 1


def test_the_servers_that_run_are_not_ended_by_a_first_look() -> None:
    assert answers([0], history=((0, 7),)) == [7]


def test_a_clock_set_back_does_not_hold_servers_longer_than_the_window() -> None:
    history: History = ((10**12, 9),)
    first, history = desired(POOL, SCALING, np.array(NOTHING), np.array(NOTHING), history, 1000)
    later, _ = desired(POOL, SCALING, np.array(NOTHING), np.array(NOTHING), history, 1000 + WINDOW_MS)
    assert (first, later) == (9, 0)


@given(
    st.lists(st.tuples(st.integers(1, 200_000), st.integers(0, 500)), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 600_000), st.integers(0, 60)), max_size=5),
)
def test_a_larger_past_never_asks_for_fewer(steps: list[tuple[int, int]], past: list[tuple[int, int]]) -> None:
    plain: History = ()
    loaded: History = tuple((ms, most) for ms, most in zip(*_falling(past), strict=True))
    at_ms = 600_000
    for after_ms, requests in steps:
        at_ms += after_ms
        demanded = np.array((0, 0, requests))
        few, plain = desired(POOL, SCALING, np.array(NOTHING), demanded, plain, at_ms)
        many, loaded = desired(POOL, SCALING, np.array(NOTHING), demanded, loaded, at_ms)
        assert few <= many
        assert count(NOTHING, (0, 0, requests)) <= few
        assert list(loaded) == sorted(loaded, key=lambda entry: -entry[1])


def _falling(past: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return sorted(ms for ms, _ in past), sorted((most for _, most in past), reverse=True)


@given(
    st.integers(0, 500),
    st.integers(0, 500),
    st.lists(st.integers(1, WINDOW_MS // TICK_MS // 20), min_size=20, max_size=60),
)
def test_a_demand_that_swings_within_the_window_gets_a_constant_answer(low: int, high: int, phases: list[int]) -> None:
    low, high = min(low, high), max(low, high)
    swinging = [requests for phase in phases for requests in ([high] + [low] * phase)]
    assert len(set(answers(swinging))) == 1


@given(st.integers(0, 2**32), st.sampled_from([50, 1000, 60_000]))
def test_the_history_is_bounded_whatever_the_tick(seed: int, tick_ms: int) -> None:
    past: History = ()
    noise = random.Random(seed)
    for tick in range(400):
        requests = 4000 - 10 * tick + noise.randrange(10)  # steadily fewer: every one is another recommendation
        _, past = desired(POOL, SCALING, np.array(NOTHING), np.array((0, 0, requests)), past, tick * tick_ms)
        assert len(past) <= SLOTS + 1


def test_a_need_that_stays_is_one_entry() -> None:
    history: History = ()
    for minute in range(4):
        _, history = desired(POOL, SCALING, np.array(NOTHING), np.array((0, 0, 8)), history, minute * 60_000)
    assert history == ((180_000, 1),)


@pytest.mark.parametrize("seed", range(3))
def test_on_a_day_of_random_demand_no_fall_follows_a_rise_within_the_window(seed: int) -> None:
    noise, requests, walk = random.Random(seed), 100.0, []
    tick_ms = 10_000
    for _ in range(24 * 3600 * 1000 // tick_ms):
        requests = max(0.0, requests + noise.gauss(0, 10))
        walk.append(requests)
    result = answers(walk, tick_ms)
    changes = [(tick * tick_ms, after - before) for tick, (before, after) in enumerate(pairwise(result), 1)]
    rises = [at for at, change in changes if change > 0]
    falls = [at for at, change in changes if change < 0]
    assert rises
    assert falls
    assert all(not rise < fall < rise + WINDOW_MS for rise in rises for fall in falls)
    unsteady = [count(NOTHING, (0, 0, one)) for one in walk]
    assert reversals(result) <= 2 * 24 * 3600 * 1000 / WINDOW_MS
    assert reversals(result) < reversals(unsteady) / 10


def reversals(result: list[int]) -> int:
    """How often a rise is followed by a fall, or a fall by a rise."""
    directions = [after > before for before, after in pairwise(result) if after != before]
    return sum(one != other for one, other in pairwise(directions))
