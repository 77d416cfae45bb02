"""What clients send, and when: a schedule that is settled before the run and follows from a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Pattern(StrEnum):
    POISSON = "poisson"
    PACED = "paced"  # evenly spaced, each moved by up to a quarter of the spacing


@dataclass(frozen=True, slots=True)
class Load:
    """One tenant's requests: open loop, they come whatever became of the ones before. Times in scenario seconds."""

    tenant: str
    per_second: float
    output_tokens: int  # on average; uniform from half of it to half more
    begins: float
    ends: float
    pattern: Pattern = Pattern.POISSON


@dataclass(frozen=True, slots=True)
class Request:
    number: (
        int  # in its tenant's order; makes each prompt differ, since asking for the same again is not asking for more
    )
    tenant: str
    at: float
    output_tokens: int


def schedule(loads: Iterable[Load], seed: int) -> tuple[Request, ...]:
    """All requests in the order of their times. A tenant's are the same whoever else is there."""
    return tuple(sorted((one for load in loads for one in _requests(load, seed)), key=lambda one: one.at))


def _requests(load: Load, seed: int) -> Iterator[Request]:
    source = random.Random(f"{seed}/{load.tenant}")  # noqa: S311 - a load that can be repeated
    for number, at in enumerate(_times(load, source)):
        length = source.uniform(0.5, 1.5) * load.output_tokens
        yield Request(number, load.tenant, at, max(1, round(length)))


def _times(load: Load, source: random.Random) -> Iterator[float]:
    spacing = 1 / load.per_second
    at = load.begins + _gap(load.pattern, spacing, source, first=True)
    while at < load.ends:
        yield at if load.pattern is Pattern.POISSON else at + source.uniform(-0.25, 0.25) * spacing
        at += _gap(load.pattern, spacing, source, first=False)


def _gap(pattern: Pattern, spacing: float, source: random.Random, *, first: bool) -> float:
    if pattern is Pattern.POISSON:
        return source.expovariate(1 / spacing)
    return spacing / 2 if first else spacing
