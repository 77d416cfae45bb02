"""Requests by length: what every formula of this package takes, from a trace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extproc.traces.trace import Trace

Floats = NDArray[np.float64]

MOST_KINDS = 10_000  # where there are more requests, neighbours in length become one kind
KEPT = 2_000  # of the longest, each for itself: there are few, and they cost most
TAIL_BEGINS = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """n kinds of requests in the order of their total length. Treat the arrays as frozen, too."""

    source: str
    prompt_tokens: Floats  # (n,) at least 1
    output_tokens: Floats  # (n,)
    share: Floats  # (n,) of all requests; sums to 1

    @property
    def total_tokens(self) -> Floats:
        return self.prompt_tokens + self.output_tokens

    @property
    def longest(self) -> float:
        return float(self.total_tokens[-1])

    def mean(self, of_each: Floats) -> float:
        """The mean over requests of a figure of each kind."""
        return float(self.share @ of_each)

    def share_between(self, low: float, high: float) -> float:
        """Of requests with low < total tokens <= high."""
        first, last = np.searchsorted(self.total_tokens, (low, high), side="right")
        return float(self.share[first:last].sum())

    def between(self, low: float, high: float) -> Lengths | None:
        """Those requests alone; None where there are none."""
        first, last = np.searchsorted(self.total_tokens, (low, high), side="right")
        share = self.share[first:last]
        if not share.sum() > 0:
            return None
        return Lengths(self.source, self.prompt_tokens[first:last], self.output_tokens[first:last], share / share.sum())

    def quantile(self, share: float) -> float:
        """The total length that this share of requests does not exceed."""
        at = int(np.searchsorted(np.cumsum(self.share), share * (1 - 1e-12)))
        return float(self.total_tokens[min(at, len(self.share) - 1)])

    def with_heavier_tail(self, factor: float, longest: float) -> Lengths:
        """The longest tenth goes `factor` times as far beyond the P90 as it does, but no further than `longest`."""
        begins, total = self.quantile(TAIL_BEGINS), self.total_tokens
        stretched = np.minimum(begins + (total - begins) * factor, max(longest, begins))
        ratio = np.where(total > begins, np.maximum(stretched, total) / total, 1.0)
        return Lengths(self.source, self.prompt_tokens * ratio, self.output_tokens * ratio, self.share)


def of_trace(trace: Trace) -> Lengths:
    """Raises ValueError for a trace without requests."""
    if not trace.requests:
        raise ValueError("there are no requests in it")
    order = np.argsort(trace.total_tokens, kind="stable")
    starts = _starts(trace.requests)
    counts = np.diff(starts, append=trace.requests)
    prompt, output = (
        np.add.reduceat(column[order].astype(np.float64), starts) / counts
        for column in (trace.prompt_tokens, trace.output_tokens)
    )
    return Lengths(trace.source, prompt, output, counts / trace.requests)


def _starts(requests: int) -> NDArray[np.int64]:
    """Where each kind begins among requests in the order of length."""
    if requests <= MOST_KINDS:
        return np.arange(requests)
    merged = requests - KEPT
    kinds = MOST_KINDS - KEPT
    return np.concatenate((np.arange(kinds) * merged // kinds, np.arange(merged, requests)))
