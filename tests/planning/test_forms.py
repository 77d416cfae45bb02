from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planning.forms import Rates, closed_saving, rates_by_length, servers_for, whole_servers
from extproc.planning.reasons import of_rates
from tests.planning.needs import lengths_of

PAPERS = Rates(2.8, 11.2, 2.8)
shares = st.floats(0.01, 0.99)
rates = st.floats(0.1, 100)


@given(shares, rates, rates)
def test_the_closed_form_is_the_papers_where_long_servers_are_as_fast_as_mixed(
    share: float, mixed: float, short: float
) -> None:
    known = Rates(mixed, short, mixed)
    assert closed_saving(share, known) == pytest.approx(share * (1 - 1 / known.rho))


@given(shares, rates, rates)
def test_splitting_saves_nothing_where_servers_do_the_same_work(share: float, short: float, long: float) -> None:
    mixed = 1 / (share / short + (1 - share) / long)
    assert closed_saving(share, Rates(mixed, short, long)) == pytest.approx(0, abs=1e-9)


@given(st.floats(0.1, 1e5), shares, rates, rates, rates)
def test_whole_servers_are_as_many_as_the_work_takes_rounded_up(
    rate: float, share: float, mixed: float, short: float, long: float
) -> None:
    count = whole_servers(rate, share, Rates(mixed, short, long))
    assert count.homogeneous - 1 < rate / mixed <= count.homogeneous * (1 + 1e-6)
    assert count.split - 2 < rate * share / short + rate * (1 - share) / long <= count.split * (1 + 1e-6)


def test_splitting_can_cost_a_server() -> None:
    rates = Rates(1.0, 2.0, 1.0)
    count = whole_servers(0.5, 0.5, rates)
    assert (count.homogeneous, count.split) == (1, 2)
    assert closed_saving(0.5, rates) == 0.25
    assert of_rates(0.5, 0.5, rates).startswith("Do not split: 1 + 1 servers instead of 1, because at this rate")


def test_the_papers_constants_do_not_give_the_papers_savings() -> None:
    assert closed_saving(0.92, PAPERS) == pytest.approx(0.69)
    assert whole_servers(1000, 0.9965, PAPERS).saving == pytest.approx(0.746, abs=0.001)


def test_a_whole_number_of_servers_is_not_rounded_up() -> None:
    assert servers_for(0.1 * 3, 0.1) == 3


def test_slow_long_servers_can_make_splitting_lose_at_any_rate() -> None:
    verdict = of_rates(1e6, 0.5, Rates(1.0, 2.0, 0.5))
    assert verdict.startswith("Do not split")
    assert "not so much faster" in verdict


def test_a_split_that_pays_says_how_many_fewer() -> None:
    assert of_rates(1000, 0.9965, PAPERS) == "Split: 89 + 2 servers instead of 358, 74.6% fewer."


def test_long_servers_are_slower_by_what_their_requests_are_longer() -> None:
    lengths = lengths_of((100, 100), (100, 100), (100, 100), (1000, 400))
    assert rates_by_length(PAPERS, lengths, 500).long == pytest.approx(2.8 * 500 / 1400)


def test_long_servers_are_as_known_where_nothing_is_long() -> None:
    assert rates_by_length(PAPERS, lengths_of((100, 100)), 500) == PAPERS
