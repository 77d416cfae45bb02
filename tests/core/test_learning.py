"""What the estimator's arithmetic achieves, over seeds; tests/ledger shows that the ledger computes the same."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimate import PRIOR_BYTES_PER_TOKEN, PRIOR_OUTPUT_TOKENS, Average, learn_output, learn_ratio

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
def test_the_output_quantile_covers_95_of_100_answers(spread: float) -> None:
    covered = [coverage(seed, spread) for seed in range(8)]
    assert all(0.93 <= share <= 0.97 for share in covered)
    assert fmean(covered) == pytest.approx(0.95, abs=0.005)


def coverage(seed: int, spread: float) -> float:
    """The share of log-normal lengths at or below the quantile learned before each, after 300 answers of burn-in."""
    draw, average, below, count = random.Random(seed), Average(0, PRIOR_OUTPUT_TOKENS), 0, 2000
    for index in range(300 + count):
        tokens = max(1, int(draw.lognormvariate(5.5, spread)))
        below += index >= 300 and tokens <= math.ceil(average.mean)
        average = learn_output(average, tokens)
    return below / count


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=100))
def test_a_learned_output_is_never_below_one_token(lengths: list[int]) -> None:
    average = Average(0, PRIOR_OUTPUT_TOKENS)
    for tokens in lengths:
        average = learn_output(average, tokens)
    assert average.mean >= 1
    assert average.n == len(lengths)
