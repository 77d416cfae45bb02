from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.scenario.vtc import WINDOW_SECONDS, Served, difference, spread


def served(client: str, asked_at: float, tokens: int, first: float | None = None, end: float | None = None) -> Served:
    """A request of prompt tokens alone, so that tokens are service."""
    return Served(client, asked_at, tokens, 0, first, end)


@pytest.mark.parametrize(
    ("got", "asked", "expected"),
    [
        pytest.param((10, 4, 0), (10, 10, 0), 6, id="who asked for nothing misses nothing"),
        pytest.param((10, 4, 0), (10, 6, 3), 2 + 3, id="no more is missed than was asked for"),
        pytest.param((10, 4, 0), (99, 99, 99), 6 + 10, id="nor more than the best served got"),
        pytest.param((10, 6), (10, 2), 4, id="what was asked for before counts, too"),
        pytest.param((7, 7), (9, 50), 0, id="equals"),
    ],
)
def test_spread_by_hand(got: tuple[int, ...], asked: tuple[int, ...], expected: float) -> None:
    assert spread(np.array(got, float), np.array(asked, float)) == expected


def test_ten_minutes_have_nineteen_windows_after_a_warm_up() -> None:
    found = difference([served("a", 0, 1, 0, 600)])
    assert found.windows[:2] == (28.5, 57.0)
    assert (len(found.points), found.windows[-1]) == (19, 541.5)


def test_service_is_spread_from_the_first_token_to_the_end() -> None:
    steady = served("steady", 0, 6000, 0, 600)  # 10 a second
    refused = served("refused", 28.5, 360)  # asked for within the first window alone: 6 a second
    found = difference([steady, refused])
    assert found.points == pytest.approx([6] + [0] * 18)
    assert (found.largest, found.mean) == pytest.approx((6, 6 / 19))
    assert found.variance == pytest.approx(36 / 19 - (6 / 19) ** 2)


def test_a_token_of_an_answer_counts_twice() -> None:
    steady = replace(served("steady", 0, 0, 0, 600), output_tokens=3000)
    assert difference([steady, served("refused", 30, 10**6)]).points[0] == pytest.approx(10)


def test_an_answer_of_one_token_counts_where_it_came() -> None:
    single = served("single", 0, 600, 30.0, 30.0)
    other = served("other", 30, 600)
    assert difference([single, other]).points[:2] == pytest.approx((10, 0))


REQUESTS = st.lists(
    st.builds(
        lambda at, wait, lasted, tokens: (at, tokens, at + wait, at + wait + lasted),
        st.floats(0, 600),
        st.floats(0, 100),
        st.floats(0, 100),
        st.integers(1, 1000),
    ),
    min_size=1,
    max_size=20,
)


@given(REQUESTS, st.integers(1, 4))
def test_identical_service_differs_by_nothing(requests: list[tuple[float, int, float, float]], clients: int) -> None:
    alike = [served(f"client {i}", *request) for i in range(clients) for request in requests]
    assert difference(alike).points == pytest.approx([0.0] * 19, abs=1e-9)


@given(st.lists(REQUESTS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_neither_the_order_of_requests_nor_the_names_of_clients_matter(
    clients: list[list[tuple[float, int, float, float]]], source: st.DataObject
) -> None:
    given_so = [served(str(i), *request) for i, own in enumerate(clients) for request in own]
    otherwise = [replace(one, client=f"z{-int(one.client)}") for one in given_so]
    source.shuffle(otherwise)  # type: ignore[attr-defined] # a random.Random
    assert difference(otherwise).points == pytest.approx(difference(given_so).points, abs=1e-6)


@given(st.lists(REQUESTS, min_size=1, max_size=4))
def test_it_is_never_negative_and_at_most_what_was_asked_for_or_served(
    clients: list[list[tuple[float, int, float, float]]],
) -> None:
    requests = [served(str(i), *request) for i, own in enumerate(clients) for request in own]
    most = 2 * sum(one.service for one in requests) / WINDOW_SECONDS
    assert all(0 <= point <= most + 1e-9 for point in difference(requests).points)
