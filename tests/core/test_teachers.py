"""What newcomers are told, and that no single tenant decides it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.averages import Average
from extproc.core.facts import Category
from extproc.core.ratios import HIGHEST_OBSERVED, LOWEST_OBSERVED, PRIORS
from extproc.core.teachers import FULL_VOICE, TEACHERS, Teacher, consensus, joined, of_category

PRIOR = Average(0, 4.0, 1.0)
PROSE, CODE, CHINESE = Category.PROSE, Category.CODE, Category.CHINESE


def teacher(name: str, mean: float, n: int = 100, deviation: float = 0.4) -> Teacher:
    return Teacher(name, Average(n, mean, deviation))


@pytest.mark.parametrize(
    ("teachers", "mean"),
    [
        pytest.param((), 4.0, id="nobody: the prior"),
        pytest.param((teacher("a", 3.0),), 3.0, id="one who says more tokens"),
        pytest.param((teacher("a", 5.0),), 4.0, id="one who says fewer is not enough"),
        pytest.param((teacher("a", 0.25),), 2.0, id="one alone is not believed that it is more than twice as many"),
        pytest.param((teacher("a", 0.5), teacher("b", 0.5)), 0.5, id="two are"),
        pytest.param((teacher("a", 5.0), teacher("b", 5.2)), 5.0, id="two"),
        pytest.param((teacher("a", 5.0), teacher("b", 5.2), teacher("c", 0.3)), 4.0, id="two and a liar"),
        pytest.param((teacher("a", 3.0, n=1),), 4.0, id="one who has taught once is hardly heard"),
    ],
)
def test_newcomers_are_told_the_median_of_the_teachers_and_the_prior(
    teachers: tuple[Teacher, ...], mean: float
) -> None:
    assert consensus(teachers, PRIOR).mean == mean


def test_the_deviation_told_covers_what_teachers_are_apart() -> None:
    alike = consensus([teacher(name, 4.4, deviation=0.3) for name in "abc"], PRIOR)
    apart = consensus([teacher("a", 3.4, deviation=0.3), teacher("b", 4.4, deviation=0.3), teacher("c", 5.4)], PRIOR)
    assert alike.deviation == pytest.approx(0.3)
    assert apart.deviation == pytest.approx(0.9)  # of the teacher at 3.4, from the median 4.0


@given(
    st.lists(st.floats(3.5, 4.5), min_size=2, max_size=TEACHERS - 1),
    st.floats(LOWEST_OBSERVED, HIGHEST_OBSERVED),
    st.integers(1, 10**9),
)
def test_one_liar_moves_newcomers_no_further_than_honest_teachers_are_apart(
    honest: list[float], lie: float, n: int
) -> None:
    teachers = [teacher(str(number), mean, FULL_VOICE) for number, mean in enumerate(honest)]
    found = consensus([Teacher("liar", Average(n, lie, 16.0)), *teachers], PRIOR)
    assert min(*honest, PRIOR.mean) <= found.mean <= max(*honest, PRIOR.mean)


def test_a_teacher_is_counted_once_and_the_oldest_leaves() -> None:
    known: tuple[Teacher, ...] = ()
    for number in range(TEACHERS + 3):
        known = joined(known, teacher(f"t{number}", 4.0))
        known = joined(known, teacher("busy", 9.0, n=number))
    assert len(known) == TEACHERS
    assert [one.name for one in known].count("busy") == 1
    assert known[0].name == "busy"
    assert known[1].name == f"t{TEACHERS + 2}"


def test_a_category_that_nobody_sent_is_shifted_as_the_others_are() -> None:
    """A tokenizer that needs twice the tokens for prose and code will need them for Chinese."""
    half = {category: tuple(teacher(name, PRIORS[category] / 2) for name in "ab") for category in (PROSE, CODE)}
    assert of_category(CHINESE, half).mean == pytest.approx(PRIORS[CHINESE] / 2)
    assert of_category(CHINESE, half).n == 0


def test_before_anybody_taught_a_category_has_its_prior() -> None:
    for category in Category:
        assert of_category(category, {}).mean == PRIORS[category]
