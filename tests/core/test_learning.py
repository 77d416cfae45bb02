"""What the estimator's arithmetic achieves, over seeds; tests/ledger shows that the ledger computes the same."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimate import (
    OUTPUT_OBSERVATIONS,
    PRIOR_BYTES_PER_TOKEN,
    PRIOR_OUTPUT_TOKENS,
    Average,
    learn_output,
    learn_ratio,
)
from extproc.traces.reading import read
from tests.traces.published import published

TRUE_RATIO, NOISE = 4.4, 0.13  # of single requests of prose under a real tokenizer
COLD = Average(0, PRIOR_BYTES_PER_TOKEN)
positive = st.floats(0.01, 1e6)


def after(seed: int, observations: int, *, bounded: bool) -> Average:
    draw, average = random.Random(seed), COLD
    for _ in range(observations):
        average = learn_ratio(average, TRUE_RATIO * (1 + draw.gauss(0, NOISE)), bounded=bounded)
    return average


@pytest.mark.parametrize("bounded", [True, False], ids=["of the model", "of the entitlement"])
def test_fifty_observations_of_noisy_text_find_the_ratio(bounded: bool) -> None:
    errors = [after(seed, 50, bounded=bounded).mean / TRUE_RATIO - 1 for seed in range(400)]
    assert abs(fmean(errors)) < 0.002  # no bias: the prior has left no trace
    assert fmean(map(abs, errors)) < 0.016  # a plain mean of 50 would have 0.0147


def test_the_deviation_found_is_that_of_the_text() -> None:
    found = fmean(after(seed, 200, bounded=True).deviation for seed in range(100))
    assert found == pytest.approx(TRUE_RATIO * NOISE * math.sqrt(2 / math.pi), rel=0.05)


def test_the_first_observation_replaces_the_prior() -> None:
    assert learn_ratio(COLD, 2.5, bounded=True).mean == pytest.approx(2.5)


@given(st.lists(positive, min_size=1, max_size=100))
def test_an_average_stays_within_what_was_observed(observed: list[float]) -> None:
    average = COLD
    for value in observed:
        average = learn_ratio(average, value, bounded=False)
    slack = 1e-9 * max(observed)
    assert min(observed) - slack <= average.mean <= max(observed) + slack


@pytest.mark.parametrize("hostile", [0.001, 1e9], ids=["downwards", "upwards"])
@pytest.mark.parametrize(("observations", "share"), [(1, 0.035), (5, 0.17), (10, 0.36)])
def test_a_few_hostile_observations_move_a_settled_average_by_little(
    hostile: float, observations: int, share: float
) -> None:
    settled = average = after(1, 50, bounded=True)
    for _ in range(observations):
        average = learn_ratio(average, hostile, bounded=True)
    assert abs(average.mean / settled.mean - 1) < share


@pytest.mark.parametrize("spread", [0.3, 0.8, 1.5])
@pytest.mark.parametrize(
    ("first", "last", "tenants"),
    [pytest.param(20, 100, 100, id="a new tenant"), pytest.param(300, 2300, 8, id="later")],
)
def test_the_output_quantile_covers_95_of_100_answers(spread: float, first: int, last: int, tenants: int) -> None:
    assert 0.94 <= fmean(coverage(seed, spread, first, last) for seed in range(tenants)) <= 0.96


def coverage(seed: int, spread: float, first: int, last: int) -> float:
    """The share of log-normal lengths at or below the quantile learned before each, from the first to the last."""
    draw = random.Random(seed)
    return covered([max(1, int(draw.lognormvariate(5.5, spread))) for _ in range(last)], first)


def covered(lengths: Sequence[int], first: int) -> float:
    average, below = Average(0, PRIOR_OUTPUT_TOKENS), 0
    for index, tokens in enumerate(lengths):
        below += index >= first and tokens <= math.ceil(average.mean)
        average = learn_output(average, tokens)
    return below / (len(lengths) - first)


@pytest.mark.parametrize("name", ["conv", "code"])
def test_the_output_quantile_covers_95_of_100_answers_of_real_traffic(name: str) -> None:
    """From the twentieth answer to the hundredth of each of many tenants, and in one long life."""
    lengths = azure_answers(name)
    lives = [covered(lengths[begin : begin + 100], OUTPUT_OBSERVATIONS) for begin in range(0, len(lengths) - 99, 100)]
    assert 0.93 <= fmean(lives) <= 0.97
    assert 0.93 <= covered(lengths, OUTPUT_OBSERVATIONS) <= 0.97


def azure_answers(name: str) -> list[int]:
    return read([published(f"AzureLLMInferenceTrace_{name}.csv")]).output_tokens.tolist()


def test_an_answer_that_was_cut_below_the_quantile_teaches_nothing() -> None:
    known = Average(50, 300.0)
    assert learn_output(known, 300, cut=True) == known
    assert learn_output(known, 301, cut=True).mean > 301


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=100))
def test_a_learned_output_is_never_below_one_token(lengths: list[int]) -> None:
    average = Average(0, PRIOR_OUTPUT_TOKENS)
    for tokens in lengths:
        average = learn_output(average, tokens)
    assert average.mean >= 1
    assert average.n == len(lengths)
