"""Learns bytes per token, for each entitlement and category.

What is learned lives in the ledger and is learned there, in `lua/settling/ratios.lua`, by the same arithmetic. The
constants are chosen by measurement: docs/estimator.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from extproc.core.averages import BETA, Average, weight
from extproc.core.facts import Category

LOWEST_OBSERVED, HIGHEST_OBSERVED = 0.25, 16.0  # bytes per token; what is further off is an attack or a fault
FIRST_DEVIATION_SHARE = 0.25  # of the ratio, which one observation alone says nothing of
LEAST_DEVIATION_SHARE = 0.02  # of the ratio: below, what looks like a drift is of no account
LEAN_LARGEST = 3.0  # deviations: no single observation says more of a drift
LEAN_ALLOWANCE = 1.0  # deviations: a smaller shift is left to the average's own fading
LEAN_LIMIT = 8.0  # deviations, summed up: the tokenizer or the texts have changed

# Bytes per token before anybody has taught, of which nobody is sure: the least of three tokenizers of large models on
# the benchmark's texts, rounded down. Prose is the papers' cold start.
PRIORS: Mapping[Category, float] = {
    Category.PROSE: 4.0,
    Category.CODE: 3.4,
    Category.JSON: 3.7,
    Category.LOGS: 2.8,
    Category.CHINESE: 2.4,
    Category.JAPANESE: 2.9,
    Category.KOREAN: 2.5,
    Category.ARABIC: 2.4,
    Category.INDIC: 2.5,
    Category.CYRILLIC: 3.5,
    Category.OTHER: 3.2,
}


@dataclass(frozen=True, slots=True)
class Ratio:
    """Bytes per token of one entitlement's texts, of one category.

    `mean` is all bytes over all tokens, both fading: only so does the sum of estimates tend to the sum of tokens. A
    mean of the requests' ratios would not: E[bytes/r] is not bytes/E[r], and long texts have ratios of their own.
    """

    n: int = 0
    mean: float = 0.0
    deviation: float = 0.0  # mean of |observed - mean|, by request
    tokens: float = 0.0  # that the mean stands for, fading
    lean: float = 0.0  # one-sided error so far (Page's CUSUM, 1954), in deviations
    lean_bytes: float = 0.0  # seen since it began
    lean_tokens: float = 0.0

    @property
    def average(self) -> Average:
        return Average(self.n, self.mean, self.deviation)


def learn(known: Ratio, text_bytes: int, prompt_tokens: float) -> Ratio:
    """One more prompt: its text, and the tokens that the server counted, less those of the template."""
    observed = min(max(text_bytes / max(1, prompt_tokens), LOWEST_OBSERVED), HIGHEST_OBSERVED)
    tokens = text_bytes / observed
    if known.n == 0:
        return Ratio(1, observed, FIRST_DEVIATION_SHARE * observed, tokens)
    error, n, held = observed - known.mean, known.n + 1, BETA * known.tokens + tokens
    learned = replace(
        known,
        n=n,
        mean=known.mean + tokens / held * error,
        deviation=known.deviation + weight(n) * (abs(error) - known.deviation),
        tokens=held,
    )
    return _leaning(learned, error / max(known.deviation, LEAST_DEVIATION_SHARE * known.mean), text_bytes, tokens)


def _leaning(ratio: Ratio, error: float, text_bytes: int, tokens: float) -> Ratio:
    """Where errors lean to one side for too long, only what was seen since they do counts any more."""
    lean = ratio.lean + min(max(error, -LEAN_LARGEST), LEAN_LARGEST)
    lean = math.copysign(max(0.0, abs(lean) - LEAN_ALLOWANCE), lean)
    if lean * ratio.lean <= 0:
        return replace(ratio, lean=lean, lean_bytes=text_bytes if lean else 0.0, lean_tokens=tokens if lean else 0.0)
    since_bytes, since_tokens = ratio.lean_bytes + text_bytes, ratio.lean_tokens + tokens
    if abs(lean) <= LEAN_LIMIT:
        return replace(ratio, lean=lean, lean_bytes=since_bytes, lean_tokens=since_tokens)
    return Ratio(ratio.n, since_bytes / since_tokens, ratio.deviation, since_tokens)
