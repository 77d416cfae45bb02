"""The service difference of VTC (Sheng et al., OSDI 2024), computed as its artifact does (fair_bench/plot).

It says how far apart the service of clients is, as far as those who got less had asked for more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extproc.core.seen import Column

PROMPT_WEIGHT, OUTPUT_WEIGHT = 1, 2  # of a token, as VTC counts service
INTERVALS = 20  # of the horizon; a window begins at each but the first
WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one request; times in seconds since the trace began."""

    client: str
    asked_at: float
    prompt_tokens: int
    output_tokens: int
    first_token_at: float | None  # None: it was refused
    ended_at: float | None

    @property
    def service(self) -> int:
        return service(self.prompt_tokens, self.output_tokens)


@dataclass(frozen=True, slots=True)
class Difference:
    """The service difference over time, in weighted tokens a second."""

    windows: tuple[float, ...]  # when each begins
    points: tuple[float, ...]

    @property
    def largest(self) -> float:
        return max(self.points)

    @property
    def mean(self) -> float:
        return float(np.mean(self.points))

    @property
    def variance(self) -> float:
        return float(np.var(self.points))


def service(prompt_tokens: int, output_tokens: int) -> int:
    return PROMPT_WEIGHT * prompt_tokens + OUTPUT_WEIGHT * output_tokens


def difference(requests: Sequence[Served], horizon_seconds: float = 600.0) -> Difference:
    """Of windows of a minute that begin every 28.5 s, where the horizon is ten minutes.

    A request's service is spread evenly from its first token to its end. Refused requests were asked for all the same:
    the artifact leaves them out, which makes whoever refuses most look fairest.
    """
    step = (horizon_seconds - WINDOW_SECONDS / 2) / INTERVALS
    begins = tuple(step * i for i in range(1, INTERVALS))
    row = {client: i for i, client in enumerate(sorted({request.client for request in requests}))}
    rows = np.array([row[request.client] for request in requests], dtype=np.intp)
    points = tuple(_point(requests, rows, len(row), begin) for begin in begins)
    return Difference(begins, points)


def spread(got: Column, asked: Column) -> float:
    """Over clients: what each misses to the best served, but no more than it asked for besides."""
    return float(np.minimum(got.max(initial=0.0) - got, np.abs(asked - got)).sum())


def _point(requests: Sequence[Served], rows: NDArray[np.intp], clients: int, begin: float) -> float:
    end = begin + WINDOW_SECONDS
    got = np.bincount(rows, [_within(request, begin, end) for request in requests], clients)
    asked = np.bincount(rows, [request.service * (begin <= request.asked_at <= end) for request in requests], clients)
    return spread(got / WINDOW_SECONDS, asked / WINDOW_SECONDS)


def _within(request: Served, begin: float, end: float) -> float:
    if request.first_token_at is None or request.ended_at is None:
        return 0.0
    lasted = request.ended_at - request.first_token_at
    if lasted <= 0:  # a single token: all at once
        return float(request.service * (begin <= request.ended_at < end))
    overlap = max(0.0, min(end, request.ended_at) - max(begin, request.first_token_at))
    return request.service * overlap / lasted
