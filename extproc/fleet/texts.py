"""Bytes for the prompts of a trace, which has none: each kind of text has its own bytes per token, and a spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extproc.core.facts import Category
from extproc.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Kind:
    category: Category
    share: float  # of requests
    bytes_per_token: float
    spread: float  # standard deviation of the logarithm, from request to request


# Ratios: the converged ones of arXiv 2604.08075, table 5. The mix of kinds: the default of its authors' simulator
# (vllm-project/semantic-router, src/fleet-sim). The spread is our own.
KINDS = (
    Kind(Category.PROSE, 0.60, 4.48, 0.10),
    Kind(Category.CODE, 0.25, 3.52, 0.10),
    Kind(Category.CHINESE, 0.15, 2.01, 0.10),
)


@dataclass(frozen=True, slots=True)
class Texts:
    """Of n requests."""

    bytes_list: list[int]
    categories: list[Category]


def synthesise(trace: Trace, kinds: Sequence[Kind], seed: int) -> Texts:
    """Draws each request's kind, and its ratio around the kind's mean. Raises ValueError where shares are none."""
    shares = np.array([kind.share for kind in kinds])
    if not len(shares) or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError("kinds of text need shares that are not negative, and one above 0")
    random = np.random.default_rng(seed)
    which = random.choice(len(kinds), trace.requests, p=shares / shares.sum())
    ratios = np.array([kind.bytes_per_token for kind in kinds])[which]
    spreads = np.array([kind.spread for kind in kinds])[which]
    own = ratios * np.exp(random.standard_normal(trace.requests) * spreads - spreads**2 / 2)  # the mean stays
    size: NDArray[np.int64] = np.maximum(1, np.rint(trace.prompt_tokens * own)).astype(np.int64)
    return Texts(size.tolist(), [kinds[index].category for index in which.tolist()])
