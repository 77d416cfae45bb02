"""A model's tokenizer is replaced while its requests go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from extproc.bench.accuracy import Guessed, error_of_sum
from extproc.bench.prompts import Prompt, Prompts
from extproc.bench.rules import Rule

CLOSE = 0.01  # of the error of the mean
STEP = 5  # requests between two looks
SOON, LATER = 100, 200  # requests after the change


@dataclass(frozen=True, slots=True)
class Drift:
    """From one tokenizer to another, over all kinds."""

    before: str
    after: str
    until_close: float | None  # requests of a kind until its estimates are within CLOSE, the median; None: never
    never_close: int  # kinds that never came so near
    error: float  # |error of the mean| over the requests from SOON to LATER, the mean over kinds
    largest_error: float


def swapped(make: Callable[[], Rule], prompts: Prompts, before: str, after: str) -> Drift:
    """Each kind's first quarter under one tokenizer, then the rest under the other."""
    found = [_of_kind(make(), prompts[before][kind], prompts[after][kind]) for kind in prompts[before]]
    errors = [error for _, error in found]
    median = float(np.median([until for until, _ in found]))
    return Drift(
        before,
        after,
        until_close=None if median == np.inf else median,
        never_close=sum(until == np.inf for until, _ in found),
        error=float(np.mean(errors)),
        largest_error=max(errors),
    )


def _of_kind(rule: Rule, before: Sequence[Prompt], after: Sequence[Prompt]) -> tuple[float, float]:
    """Requests until it is close, infinite where it never is; and the error later on."""
    at = len(before) // 4
    for prompt in before[:at]:
        rule.learn(prompt.kind, prompt.facts, prompt.tokens)
    rest, until, later = after[at:], np.inf, []
    for number, prompt in enumerate(rest):
        if number % STEP == 0 and until == np.inf and abs(error_of_sum(_guessed(rule, rest))) <= CLOSE:
            until = number
        if SOON <= number < LATER:
            later.extend(_guessed(rule, [prompt]))
        rule.learn(prompt.kind, prompt.facts, prompt.tokens)
    return until, abs(error_of_sum(later))


def _guessed(rule: Rule, prompts: Sequence[Prompt]) -> list[Guessed]:
    """By what is known now."""
    return [Guessed(prompt, rule.guess(prompt.kind, prompt.facts)) for prompt in prompts]
