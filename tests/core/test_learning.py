"""What the estimator's arithmetic achieves, over seeds; tests/ledger shows that the ledger computes the same."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.averages import Average
from extproc.core.estimate import OUTPUT_OBSERVATIONS, PRIOR_OUTPUT_TOKENS
from extproc.core.lessons import learn_output
from extproc.core.ratios import HIGHEST_OBSERVED, LOWEST_OBSERVED, Ratio, learn
from extproc.traces.reading import read
from tests.traces.published import published

NEW = Ratio()
TRUE_RATIO, NOISE = 4.4, 0.13  # of single requests of prose under a real tokenizer


def observations(seed: int, ratio: float = TRUE_RATIO, noise: float = NOISE) -> Iterator[tuple[int, int]]:
    """Bytes and tokens of requests whose sizes spread over three orders of magnitude."""
    draw = random.Random(seed)
    while True:
        tokens = 1 + int(draw.lognormvariate(7, 1.2))
        yield max(1, round(tokens * ratio * (1 + draw.gauss(0, noise)))), tokens


def after(seed: int, count: int, known: Ratio = NEW, ratio: float = TRUE_RATIO, noise: float = NOISE) -> Ratio:
    for text_bytes, tokens in islice(observations(seed, ratio, noise), count):
        known = learn(known, text_bytes, tokens)
    return known


def test_fifty_observations_of_noisy_text_find_the_ratio() -> None:
    found = [after(seed, 50).mean / TRUE_RATIO - 1 for seed in range(200)]
    assert abs(fmean(found)) < 0.005
    assert fmean(map(abs, found)) < 0.04


def test_estimates_by_it_add_up_to_what_servers_count() -> None:
    """Were ratios of requests averaged, long texts with a ratio of their own would be off by a tenth."""
    known, estimated, counted = NEW, 0.0, 0
    draw = random.Random(3)
    for number in range(3000):
        long = draw.random() < 0.3
        tokens = draw.randint(4000, 6000) if long else draw.randint(100, 300)
        text_bytes = round(tokens * (3.0 if long else 5.0))
        if number >= 50:
            estimated, counted = estimated + text_bytes / known.mean, counted + tokens
        known = learn(known, text_bytes, tokens)
    assert estimated / counted == pytest.approx(1, abs=0.01)


def test_the_deviation_found_is_that_of_the_text() -> None:
    deviations = [after(seed, 300).deviation / TRUE_RATIO for seed in range(20)]
    assert fmean(deviations) == pytest.approx(NOISE * math.sqrt(2 / math.pi), rel=0.1)


def test_the_first_observation_replaces_the_prior() -> None:
    assert learn(NEW, 900, 300).average == Average(1, 3.0, 0.75)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)), min_size=1, max_size=200))
def test_a_ratio_stays_within_what_a_tokenizer_could_give(seen: list[tuple[int, int]]) -> None:
    known = NEW
    for text_bytes, tokens in seen:
        known = learn(known, text_bytes, tokens)
    assert LOWEST_OBSERVED * 0.999 <= known.mean <= HIGHEST_OBSERVED * 1.001
    assert known.deviation >= 0
    assert known.n == len(seen)


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.3, 2.0])
def test_after_a_change_of_tokenizer_a_hundred_requests_are_enough(factor: float) -> None:
    """Without a restart the old tokenizer would still be an eighth of what is believed."""
    errors = []
    for seed in range(60):
        changed = after(seed + 1000, 100, after(seed, 300), TRUE_RATIO * factor)
        errors.append(changed.mean / (TRUE_RATIO * factor) - 1)
    assert abs(fmean(errors)) < 0.01


def test_noise_alone_restarts_nothing() -> None:
    restarts = 0
    for seed in range(20):
        known = NEW
        for text_bytes, tokens in islice(observations(seed), 1000):
            before, known = known, learn(known, text_bytes, tokens)
            restarts += known.tokens < 0.5 * before.tokens and known.n > 50
    assert restarts <= 2


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
    lengths: list[int] = read([published(f"AzureLLMInferenceTrace_{name}.csv")]).output_tokens.tolist()
    return lengths


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
