"""Distributions of total tokens as points of their cumulative distribution, and draws from them."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from extproc.traces.rows import text
from extproc.traces.trace import Tokens, TraceError

LEAST_TOKENS = 2  # one of a prompt, one of its answer
ROUNDING = 1e-9  # what a logarithm and back may add to a whole number

Point = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Raises TraceError where the points are no cumulative distribution."""

    name: str  # for messages and pictures
    points: tuple[Point, ...]  # (tokens, share of the requests that have at most so many), ascending, the last share 1

    def __post_init__(self) -> None:
        if not self.points or self.points[0][0] < LEAST_TOKENS or self.points[-1][1] != 1:
            raise TraceError(
                f"{self.name}: expected points of at least {LEAST_TOKENS} tokens, the last with the share 1"
            )
        for (tokens, share), (more, larger) in itertools.pairwise(((0, 0.0), *self.points)):
            if not (tokens < more and share <= larger <= 1):
                raise TraceError(
                    f"{self.name}: expected tokens and shares that ascend, found {more}, {larger:g} after"
                    f" {tokens}, {share:g}"
                )

    def tokens_at(self, shares: NDArray[np.float64]) -> Tokens:
        """The totals below which these shares of the requests lie.

        Between two points the logarithm of the length is taken as uniform: short lengths are the more frequent ones.
        """
        lengths, below = (np.array(column) for column in zip((1, 0.0), *self.points, strict=True))
        drawn = np.exp(np.interp(shares, below, np.log(lengths)))
        tokens: Tokens = np.ceil(drawn * (1 - ROUNDING)).astype(np.int64)
        return np.maximum(tokens, LEAST_TOKENS)


def read_quantiles(path: Path) -> Quantiles:
    """Pairs of tokens and share: JSON `[[64, 0.01], ...]`, or lines `64,0.01` with or without a header.

    Raises TraceError, and OSError where there is no such file.
    """
    content = text(path)
    try:
        points = _points(content)
    except (msgspec.DecodeError, ValueError) as error:
        raise TraceError(
            f"{path}: expected pairs of tokens and share, as [[64, 0.01], ...] or lines 64,0.01: {error}"
        ) from error
    return Quantiles(str(path), tuple(points))


def _points(content: str) -> list[Point]:
    if content.lstrip().startswith("["):
        return msgspec.json.decode(content, type=list[Point])
    return list(_lines(content))


def _lines(content: str) -> Iterator[Point]:
    for number, cells in enumerate(csv.reader(content.splitlines()), 1):
        if not cells or (number == 1 and not cells[0].strip().isdigit()):  # an empty line, or the header
            continue
        try:
            tokens, share = cells
            yield int(tokens), float(share)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
