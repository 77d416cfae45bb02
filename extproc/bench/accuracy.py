"""How far estimates are off, and which requests they send to the wrong pool."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extproc.bench.prompts import Kinds, Prompt, interleaved
from extproc.bench.rules import Guess, Rule

THRESHOLDS = (2048, 4096, 8192, 16_384, 32_768)  # of a short pool, in tokens of prompt and output
LEARNED_AFTER = 50  # observations, as the papers'
CURVE_WINDOW = 25  # requests
Tenant = Callable[[str], str]  # of a kind of requests


@dataclass(frozen=True, slots=True)
class Guessed:
    """One request, and what a rule said of it before it learned of it."""

    prompt: Prompt
    guess: Guess


@dataclass(frozen=True, slots=True)
class Score:
    """Of many requests, but for the first LEARNED_AFTER. Shares, of 1."""

    error: float  # of the sum of likely tokens, over all orders together
    single_error: float  # its size in one order, on average: by chance, too, for a few long prompts weigh most
    p95: float  # of |likely / true - 1|, by request
    misroutes: tuple[float, ...]  # at each of THRESHOLDS: longer than it, and kept in the short pool
    needless: tuple[float, ...]  # not longer, and sent to the long pool


def each_its_own(kind: str) -> str:
    return kind


def one_for_all(kind: str) -> str:  # noqa: ARG001 - a Tenant's signature
    return "everybody"


def run(rule: Rule, kinds: Kinds, seed: int, tenant: Tenant = each_its_own) -> dict[str, list[Guessed]]:
    """Every request is estimated, then learned from; by kind."""
    found: dict[str, list[Guessed]] = defaultdict(list)
    for prompt in interleaved(kinds, seed):
        name = tenant(prompt.kind)
        found[prompt.kind].append(Guessed(prompt, rule.guess(name, prompt.facts)))
        rule.learn(name, prompt.facts, prompt.tokens)
    return {kind: found[kind] for kind in kinds}


def score(orders: Sequence[Sequence[Guessed]]) -> Score:
    """Of one kind, in one or several orders."""
    known = [guessed[LEARNED_AFTER:] for guessed in orders]
    every = [one for guessed in known for one in guessed]
    likely, careful, tokens, output = _columns(every)
    long = [tokens + output > threshold for threshold in THRESHOLDS]
    sent = [careful + output > threshold for threshold in THRESHOLDS]
    return Score(
        error=error_of_sum(every),
        single_error=float(np.mean([abs(error_of_sum(guessed)) for guessed in known])),
        p95=float(np.quantile(np.abs(likely / tokens - 1), 0.95)),
        misroutes=tuple(float(np.mean(is_long & ~to)) for is_long, to in zip(long, sent, strict=True)),
        needless=tuple(float(np.mean(~is_long & to)) for is_long, to in zip(long, sent, strict=True)),
    )


def error_of_sum(guessed: Iterable[Guessed]) -> float:
    """The error of the mean: likely tokens of all, over true ones, less 1."""
    known = tuple(guessed)
    return sum(one.guess.likely for one in known) / sum(one.prompt.tokens for one in known) - 1


def mean(scores: Sequence[Score]) -> Score:
    """Errors count by their size, whatever their sign."""
    return Score(
        error=float(np.mean([abs(one.error) for one in scores])),
        single_error=float(np.mean([one.single_error for one in scores])),
        p95=float(np.mean([one.p95 for one in scores])),
        misroutes=tuple(map(float, np.mean([one.misroutes for one in scores], axis=0))),
        needless=tuple(map(float, np.mean([one.needless for one in scores], axis=0))),
    )


def curve(runs: Iterable[Mapping[str, Sequence[Guessed]]]) -> NDArray[np.float64]:
    """|error of the mean| over the last CURVE_WINDOW requests, after as many as its index; the median over kinds.

    While there are fewer, over as many as there are; index 0 is the first request alone, of which nothing is known.
    """
    rows = [_running(guessed) for kinds in runs for guessed in kinds.values()]
    return np.median(rows, axis=0)


def _running(guessed: Sequence[Guessed]) -> NDArray[np.float64]:
    likely, _, tokens, _ = _columns(guessed)
    return np.abs(_sums(likely) / _sums(tokens) - 1)


def _sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.cumsum(values)
    sums[CURVE_WINDOW:] -= sums[:-CURVE_WINDOW].copy()
    return sums


def _columns(guessed: Sequence[Guessed]) -> NDArray[np.float64]:
    """Shape (4, n): likely, careful, true prompt, output."""
    rows = [(one.guess.likely, one.guess.careful, one.prompt.tokens, one.prompt.output) for one in guessed]
    return np.array(rows, dtype=np.float64).T
