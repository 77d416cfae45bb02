from __future__ import annotations

import heapq
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planning.queueing import NONE, Wait, both, erlang_c, gg1, mgc

SERVICE_MS = 100.0


def mean_ms(wait: Wait) -> float:
    return wait.chance * wait.mean_ms


def simulated_ms(places: int, load: float, service_ms: np.ndarray) -> float:
    """The mean wait of Poisson arrivals, first come, first served, by its definition."""
    source = np.random.default_rng(5)
    arrivals = np.cumsum(source.exponential(SERVICE_MS / load, len(service_ms)))
    free = [0.0] * places
    waited = 0.0
    for at, takes in zip(arrivals, service_ms, strict=True):
        begins = max(at, heapq.heappop(free))
        waited += begins - at
        heapq.heappush(free, begins + takes)
    return waited / len(service_ms)


@pytest.mark.parametrize(
    ("places", "load", "chance"),
    [(1, 0.7, 0.7), (2, 1.0, 1 / 3), (10, 8.0, 0.40918), (100, 90.0, 0.21692)],
    ids=["one", "two", "ten", "a hundred"],
)
def test_erlangs_c_is_that_of_the_tables(places: int, load: float, chance: float) -> None:
    assert erlang_c(places, load) == pytest.approx(chance, rel=2e-4)


def test_hardly_anybody_waits_for_one_of_very_many_places() -> None:
    assert erlang_c(100_000, 80_000) == 0
    assert mgc(100_000, 80_000, SERVICE_MS, 1.0) == NONE


@pytest.mark.parametrize("squared_cv", [0.0, 1.0, 4.0])
def test_with_one_place_it_is_pollaczek_and_khinchines(squared_cv: float) -> None:
    exact = 0.8 / (1 - 0.8) * SERVICE_MS * (1 + squared_cv) / 2
    assert mean_ms(mgc(1, 0.8, SERVICE_MS, squared_cv)) == pytest.approx(exact)
    assert mean_ms(gg1(0.8, SERVICE_MS, 1.0, squared_cv)) == pytest.approx(exact)


def test_with_exponential_service_it_is_erlangs() -> None:
    assert mean_ms(mgc(10, 8.0, SERVICE_MS, 1.0)) == pytest.approx(erlang_c(10, 8.0) * SERVICE_MS / 2)


@pytest.mark.parametrize(
    ("places", "load", "squared_cv"),
    [(4, 3.4, 0.0), (4, 3.4, 2.0), (12, 10.0, 0.0), (12, 10.0, 2.0)],
)
def test_it_is_close_to_a_simulated_queue(places: int, load: float, squared_cv: float) -> None:
    n, source = 120_000, np.random.default_rng(6)
    service = np.full(n, SERVICE_MS)
    if squared_cv:
        service = source.gamma(1 / squared_cv, SERVICE_MS * squared_cv, n)
    assert mean_ms(mgc(places, load, SERVICE_MS, squared_cv)) == pytest.approx(
        simulated_ms(places, load, service), rel=0.12
    )


@given(st.integers(1, 300), st.floats(0.05, 0.98), st.floats(0.001, 0.019), st.floats(0, 20))
def test_more_load_never_waits_less(places: int, busy: float, more: float, squared_cv: float) -> None:
    less, longer = (mean_ms(mgc(places, at * places, SERVICE_MS, squared_cv)) for at in (busy, busy + more))
    assert less <= longer * (1 + 1e-9)


@given(st.floats(0.01, 1), st.floats(0.1, 1e4), st.floats(0.01, 1), st.floats(0.1, 1e4))
def test_two_waits_last_as_long_as_both(chance: float, ms: float, other: float, other_ms: float) -> None:
    summed = both(Wait(chance, ms), Wait(other, other_ms))
    assert mean_ms(summed) == pytest.approx(chance * ms + other * other_ms)
    assert max(chance, other) <= summed.chance <= 1


def test_a_wait_exceeds_nothing_with_its_chance_and_decays() -> None:
    beyond = Wait(0.5, 10.0).beyond(np.array([-1.0, 0.0, 10.0]))
    assert beyond.tolist() == pytest.approx([1.0, 0.5, 0.5 / math.e])


def test_no_wait_exceeds_nothing() -> None:
    assert both(NONE, NONE).beyond(np.array([-1.0, 0.0, 1.0])).tolist() == [1.0, 0.0, 0.0]
