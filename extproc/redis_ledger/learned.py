"""What has been learned, as `lua/settle.lua` writes it, back to values; and the constants that it learns by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from extproc.core import averages, lessons, ratios, teachers
from extproc.core.averages import Average
from extproc.core.estimate import NOTHING, PRIOR_OUTPUT, PRIOR_STREAM_BYTES_PER_TOKEN, PRIOR_TEMPLATE, Beliefs
from extproc.core.facts import Category
from extproc.core.teachers import Class, Teacher

CONSTANTS: tuple[float, ...] = (
    averages.BETA,
    ratios.LOWEST_OBSERVED,
    ratios.HIGHEST_OBSERVED,
    ratios.FIRST_DEVIATION_SHARE,
    ratios.LEAST_DEVIATION_SHARE,
    ratios.LEAN_LARGEST,
    ratios.LEAN_ALLOWANCE,
    ratios.LEAN_LIMIT,
    teachers.TEACHERS,
    lessons.SHORT_TEXT_BYTES,
    lessons.MOST_MESSAGE_TOKENS,
    lessons.OUTPUT_QUANTILE,
    lessons.OUTPUT_FIRST_STEP,
    lessons.OUTPUT_LAST_STEP,
)
CLASS_FIELDS = tuple(f"teachers {category}" for category in Category)
SHARED_FIELDS = ("stream", "teachers overhead", *CLASS_FIELDS)
OWN_FIELDS = 4
_TEACHER_WIDTH = 4  # name, n, mean, deviation


@dataclass(frozen=True, slots=True)
class Shared:
    """What was learned of all of a model's entitlements together."""

    stream_bytes_per_token: float
    overhead: Average
    of_category: Mapping[Category, Average]


def own_fields(entitlement: str, category: Category) -> tuple[str, ...]:
    ratio = f"ratio {category} {entitlement}"
    return (ratio, *(f"{kind} {entitlement}" for kind in ("overhead", "output", "open")))


def shared(records: Sequence[str | None], wanted: Iterable[Category]) -> Shared:
    """In the order of SHARED_FIELDS. What teachers say is weighed once for each category, however many ask."""
    stream, overhead, *of_categories = records
    known = classes(of_categories)
    return Shared(
        stream_bytes_per_token=_average(stream).mean if stream else PRIOR_STREAM_BYTES_PER_TOKEN,
        overhead=teachers.consensus(_class(overhead), PRIOR_TEMPLATE),
        of_category={category: teachers.of_category(category, known) for category in set(wanted)},
    )


def bytes_per_token(records: Sequence[str | None]) -> dict[str, float]:
    """In the order of CLASS_FIELDS: what newcomers are told, of each category that somebody has taught."""
    known = classes(records)
    return {category.value: teachers.of_category(category, known).mean for category in known}


def classes(records: Sequence[str | None]) -> dict[Category, Class]:
    """In the order of CLASS_FIELDS; those that somebody has taught."""
    return {category: _class(record) for category, record in zip(Category, records, strict=True) if record}


def beliefs(of_all: Shared, category: Category, of_one: Sequence[str | None]) -> Beliefs:
    """`of_one`: in the order of own_fields."""
    ratio, overhead, output, open_output = of_one
    return Beliefs(
        of_model=of_all.of_category[category],
        of_entitlement=_average(ratio) if ratio else NOTHING,
        overhead_of_model=of_all.overhead,
        overhead_of_entitlement=_average(overhead) if overhead else NOTHING,
        output=_average(output) if output else PRIOR_OUTPUT,
        open_output=_average(open_output) if open_output else PRIOR_OUTPUT,
        stream_bytes_per_token=of_all.stream_bytes_per_token,
    )


def _average(record: str) -> Average:
    n, mean, *rest = map(float, record.split())
    return Average(int(n), mean, *rest[:1])


def _class(record: str | None) -> Class:
    words = record.split() if record else []
    entries = (words[start : start + _TEACHER_WIDTH] for start in range(0, len(words), _TEACHER_WIDTH))
    return tuple(
        Teacher(name, Average(int(float(n)), float(mean), float(deviation))) for name, n, mean, deviation in entries
    )
