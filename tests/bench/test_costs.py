"""An estimate costs a few times what decoding the same body costs, however large that is."""

from __future__ import annotations

import pytest

from extproc.bench.costs import Cost, costs

LARGE = 100_000  # bytes


@pytest.fixture(scope="module")
def measured(texts: None) -> tuple[Cost, ...]:  # noqa: ARG001 - a fixture that skips
    return costs(seed=0)


def test_a_small_body_costs_no_more_than_a_few_times_its_decoding(measured: tuple[Cost, ...]) -> None:
    assert [one for one in measured if one.bytes < LARGE and one.estimate > 4 * one.json] == []


def test_no_part_of_the_cost_of_a_large_body_grows_faster_than_its_decoding(measured: tuple[Cost, ...]) -> None:
    assert [one for one in measured if one.bytes >= LARGE and one.estimate > 3 * one.json] == []
