"""When a tokenizer is swapped, estimates follow."""

from __future__ import annotations

import pytest

from extproc.bench.drift import swapped
from extproc.bench.prompts import Prompts
from extproc.bench.report import QUICK
from extproc.bench.rules import RULES, Asymmetric, Learned


@pytest.mark.parametrize(("before", "after"), QUICK.swaps)
def test_most_kinds_are_known_again_within_a_hundred_requests(prompts: Prompts, before: str, after: str) -> None:
    found = swapped(Learned, prompts, before, after)
    assert found.until_close is not None
    assert found.until_close <= 100


@pytest.mark.parametrize(("before", "after"), QUICK.swaps)
def test_after_a_hundred_requests_no_kind_is_far_off(prompts: Prompts, before: str, after: str) -> None:
    found = swapped(Learned, prompts, before, after)
    assert found.error < 0.02
    assert found.largest_error < 0.05
    assert found.close_later >= len(QUICK.kinds) / 2


@pytest.mark.parametrize(("before", "after"), QUICK.swaps)
def test_no_published_rule_follows_as_well(prompts: Prompts, before: str, after: str) -> None:
    errors = {name: swapped(make, prompts, before, after).error for name, make in RULES.items()}
    assert min(errors, key=errors.__getitem__) == "tokenpool"


def test_a_rule_that_does_not_follow_is_said_never_to(prompts: Prompts) -> None:
    found = swapped(Asymmetric, prompts, "cl100k", "tiny")
    assert found.until_close is None
    assert found.never_close > len(QUICK.kinds) / 2
