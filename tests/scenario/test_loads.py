from __future__ import annotations

from itertools import pairwise

import pytest

from extproc.scenario.loads import Load, Pattern, Request, schedule

POISSON = Load("a", per_second=5.0, output_tokens=40, begins=10.0, ends=210.0)
PACED = Load("b", per_second=2.0, output_tokens=40, begins=0.0, ends=100.0, pattern=Pattern.PACED)


def times(load: Load, seed: int = 1) -> list[float]:
    return [one.at for one in schedule([load], seed)]


def test_the_same_seed_gives_the_same_requests_and_another_seed_others() -> None:
    assert schedule([POISSON], 1) == schedule([POISSON], 1) != schedule([POISSON], 2)


def test_a_tenants_requests_do_not_depend_on_who_else_is_there() -> None:
    together = schedule([POISSON, PACED], 1)
    assert tuple(one for one in together if one.tenant == "a") == schedule([POISSON], 1)


def test_requests_come_in_the_order_of_their_times() -> None:
    found = schedule([PACED, POISSON], 1)
    assert list(found) == sorted(found, key=lambda one: one.at)


@pytest.mark.parametrize("load", [POISSON, PACED], ids=lambda load: load.pattern.value)
def test_requests_come_at_the_rate_asked_for_and_within_its_time(load: Load) -> None:
    found = times(load)
    assert all(load.begins <= at < load.ends for at in found)
    assert len(found) == pytest.approx(load.per_second * (load.ends - load.begins), rel=0.1)


def test_poisson_gaps_are_as_wide_as_their_spread_and_paced_ones_are_even() -> None:
    gaps = [after - before for before, after in pairwise(times(POISSON))]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert spread == pytest.approx(mean, rel=0.2)
    assert all(0.25 <= after - before <= 0.75 for before, after in pairwise(times(PACED)))


def test_answers_are_from_half_to_one_and_a_half_of_the_average() -> None:
    lengths = [one.output_tokens for one in schedule([POISSON], 1)]
    assert (min(lengths), max(lengths)) == pytest.approx((20, 60), abs=2)
    assert sum(lengths) / len(lengths) == pytest.approx(40, rel=0.05)


def test_each_request_of_a_tenant_has_its_own_number() -> None:
    found: tuple[Request, ...] = schedule([POISSON], 1)
    assert [one.number for one in found] == list(range(len(found)))
