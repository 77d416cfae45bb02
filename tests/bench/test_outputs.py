"""The learned bound of an answer's length holds as often as it should."""

from __future__ import annotations

import pytest

from extproc.bench.outputs import SPREADS, coverage, drawn

LENGTHS = drawn(seed=0)


@pytest.mark.parametrize("name", LENGTHS, ids=map(str, SPREADS))
def test_about_ninety_five_in_a_hundred_answers_are_within_it(name: str) -> None:
    found = coverage(name, LENGTHS[name])
    assert 0.93 <= found.short_lives <= 0.97
    assert 0.93 <= found.long_life <= 0.97


def test_answers_that_are_all_alike_are_within_it_at_least_as_often() -> None:
    assert coverage("same", [100.0] * 1000).short_lives >= 0.95
