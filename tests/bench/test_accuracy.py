"""Estimates of real texts under real tokenizers: near the truth on average, and hardly ever in the wrong pool."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from extproc.bench import accuracy
from extproc.bench.accuracy import CURVE_WINDOW, THRESHOLDS, Score
from extproc.bench.prompts import Prompts, interleaved
from extproc.bench.report import QUICK
from extproc.bench.rules import LEARNED, RULES, STATIC, Learned

Scores = Mapping[tuple[str, str], Score]  # by tokenizer and kind


def scores(prompts: Prompts, rule: str) -> Scores:
    found = {}
    for vocabulary, kinds in prompts.items():
        orders = [accuracy.run(RULES[rule](), kinds, order) for order in range(QUICK.orders)]
        found.update({(vocabulary, kind): accuracy.score([order[kind] for order in orders]) for kind in kinds})
    return found


@pytest.fixture(scope="module")
def learned(prompts: Prompts) -> Scores:
    return scores(prompts, LEARNED)


@pytest.mark.parametrize("vocabulary", QUICK.vocabularies)
@pytest.mark.parametrize("kind", QUICK.kinds)
def test_after_fifty_observations_estimates_are_right_on_average(learned: Scores, vocabulary: str, kind: str) -> None:
    assert abs(learned[vocabulary, kind].error) < 0.01


def test_hardly_any_request_is_too_long_for_the_pool_it_is_sent_to(learned: Scores) -> None:
    at = THRESHOLDS.index(8192)
    assert accuracy.mean([*learned.values()]).misroutes[at] < 0.002


def test_what_is_learned_is_nearer_than_four_bytes_a_token(prompts: Prompts, learned: Scores) -> None:
    static = scores(prompts, STATIC)
    assert [key for key, score in learned.items() if abs(score.error) >= abs(static[key].error)] == []


def test_one_tenant_that_sends_everything_is_known_better_than_by_the_papers_rule(prompts: Prompts) -> None:
    def error(rule: str) -> float:
        runs = [accuracy.run(RULES[rule](), kinds, 0, accuracy.one_for_all) for kinds in prompts.values()]
        return accuracy.mean([accuracy.score([guessed]) for run in runs for guessed in run.values()]).error

    assert error(LEARNED) < error("paper")


def test_every_request_comes_once_whatever_the_order(prompts: Prompts) -> None:
    kinds = prompts[QUICK.vocabularies[0]]
    first, second = (list(interleaved(kinds, seed)) for seed in (1, 2))
    assert first != second
    assert set(map(id, first)) == set(map(id, second))
    assert len(first) == QUICK.requests * len(QUICK.kinds)


def test_the_curve_is_of_the_last_requests_alone(prompts: Prompts) -> None:
    run = accuracy.run(Learned(), prompts["cl100k"], 0)
    last = [abs(accuracy.error_of_sum(guessed[-CURVE_WINDOW:])) for guessed in run.values()]
    assert accuracy.curve([run])[-1] == pytest.approx(np.median(last))
