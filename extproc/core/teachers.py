"""What an entitlement is told before it has observations of its own: by others of its model, none of whom decides.

A newcomer reads a weighted median over entitlements, not an average over requests: one that sends adversarial text is
one voice, however much it sends. Our own rule; figures are in docs/estimator.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from extproc.core.averages import Average
from extproc.core.facts import Category
from extproc.core.ratios import FIRST_DEVIATION_SHARE, PRIORS

TEACHERS = 9  # entitlements that taught last
FULL_VOICE = 20  # observations from which on a teacher counts no more; the prior counts as much
LONE_FACTOR = 2.0  # a teacher that nobody else confirms is believed down to this part of the prior


@dataclass(frozen=True, slots=True)
class Teacher:
    """What one entitlement has learned of a category, or of its template."""

    name: str
    average: Average


Class = Sequence[Teacher]  # who taught last comes first


def joined(known: Class, teacher: Teacher) -> tuple[Teacher, ...]:
    """The class after this teacher has taught."""
    return (teacher, *(one for one in known if one.name != teacher.name))[:TEACHERS]


def consensus(known: Class, prior: Average) -> Average:
    """The weighted median of the teachers and the prior; n is 0 where nobody taught.

    Its deviation is the median of what each would find around it: its own, and how far it is off.
    """
    voices = [*((one.average, min(one.average.n, FULL_VOICE)) for one in known), (prior, FULL_VOICE)]
    mean = _median([(voice.mean, weight) for voice, weight in voices])
    if len(known) == 1:
        mean = max(mean, prior.mean / LONE_FACTOR)
    deviation = _median([(voice.deviation + abs(voice.mean - mean), weight) for voice, weight in voices])
    return Average(sum(one.average.n for one in known), mean, deviation)


def of_category(category: Category, classes: Mapping[Category, Class]) -> Average:
    """Bytes per token: what the category's teachers say, around a prior that the other categories' teachers shift."""
    factor = math.exp(_shift(category, classes))
    mean = PRIORS[category] * factor
    return consensus(classes.get(category, ()), Average(0, mean, FIRST_DEVIATION_SHARE * mean))


def _shift(category: Category, classes: Mapping[Category, Class]) -> float:
    """By how much this model's tokenizer differs from the priors, as a logarithm: the median over other categories."""
    found = []
    for other, teachers in classes.items():
        if other is not category and teachers:
            prior = Average(0, PRIORS[other], FIRST_DEVIATION_SHARE * PRIORS[other])
            found.append((math.log(consensus(teachers, prior).mean / prior.mean), 1))
    return _median(found) if found else 0.0


def _median(weighted: Sequence[tuple[float, int]]) -> float:
    """The lower weighted median: in doubt more tokens."""
    ordered = sorted(weighted)
    half = sum(weight for _, weight in ordered) / 2
    sums = accumulate(weight for _, weight in ordered)
    return next(value for (value, _), sum_ in zip(ordered, sums, strict=True) if sum_ >= half)
