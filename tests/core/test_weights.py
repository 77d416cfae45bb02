from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.policy import ServiceClass, Sharing
from extproc.core.weights import of_class, urgency, weights

SHARING = Sharing()
uses = st.floats(0, 100)
debts = st.floats(-1, 1)
slos = st.none() | st.integers(1, 10**7)


def weight(constant: float = 4.0, use: float = 1.0, debt: float = 0.0, sharing: Sharing = SHARING) -> float:
    return float(weights(sharing, np.array([constant]), np.array([use]), np.array([debt]))[0])


@pytest.mark.parametrize(
    ("slo_ms", "expected"),
    [
        pytest.param(None, 1.0, id="none"),
        pytest.param(1000, 1.0, id="the reference"),
        pytest.param(500, 2**0.25, id="twice as tight"),
        pytest.param(1, 2.0, id="at most twice the weight"),
        pytest.param(30_000, 0.5, id="at least half"),
    ],
)
def test_a_tighter_slo_weighs_more_within_bounds(slo_ms: int | None, expected: float) -> None:
    assert urgency(SHARING, slo_ms) == pytest.approx(expected)


def test_classes_weigh_as_configured() -> None:
    sharing = replace(SHARING, elastic_weight=8.0, spot_weight=2.0, preemptible_weight=0.25)
    assert [of_class(sharing, one) for one in ServiceClass] == [8.0, 8.0, 8.0, 2.0, 0.25]


def test_twice_the_base_in_use_halves_the_weight() -> None:
    assert weight(use=2.0) == weight() / 2


def test_use_below_the_base_costs_nothing() -> None:
    assert weight(use=0.0) == weight(use=1.0)


@given(uses, debts)
def test_debt_and_over_use_move_a_weight_one_way(use: float, debt: float) -> None:
    here = weight(use=use, debt=debt)
    assert 0 < weight(use=use + 0.5, debt=debt) <= here <= weight(use=use, debt=min(1.0, debt + 0.1))
    assert weight(constant=5.0, use=use, debt=debt) > here


@given(slos, slos)
def test_full_debt_outweighs_any_difference_of_two_slos(one: int | None, other: int | None) -> None:
    assert weight(urgency(SHARING, one), debt=1.0) > weight(urgency(SHARING, other))


def test_negative_debt_lowers_nothing() -> None:
    assert weight(debt=-1.0) == weight()
