"""A model's tokenizer is replaced while its requests go on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from extproc.bench.accuracy import Guessed, error_of_sum
from extproc.bench.prompts import Prompt, Prompts
from extproc.bench.rules import Rule

CLOSE = 0.01  # of the error of the mean
STEP = 5  # requests between two looks
SOON, LATER = 100, 200  # requests after the change
ORDERS = 10  # of the requests: in one alone a few long prompts decide


@dataclass(frozen=True, slots=True)
class Drift:
    """From one tokenizer to another, over all kinds."""

    before: str
    after: str
    until_close: float | None  # requests of a kind until its estimates are within CLOSE, the median; None: never
    never_close: int  # kinds that never came so near
    error: float  # |error of the mean| over the requests from SOON to LATER of all orders, the mean over kinds
    largest_error: float
    close_later: int  # kinds within CLOSE by then


def swapped(make: Callable[[], Rule], prompts: Prompts, before: str, after: str) -> Drift:
    """Each kind's first quarter under one tokenizer, then the rest under the other."""
    pairs = [(prompts[before][kind], prompts[after][kind]) for kind in prompts[before]]
    waits = [_until_close(*_swapped(make, *pair, order=0)) for pair in pairs]
    errors = [_later_error(make, *pair) for pair in pairs]
    median = float(np.median(waits))
    return Drift(
        before,
        after,
        until_close=None if median == np.inf else median,
        never_close=waits.count(np.inf),
        error=float(np.mean(errors)),
        largest_error=max(errors),
        close_later=sum(error <= CLOSE for error in errors),
    )


def _swapped(
    make: Callable[[], Rule], before: Sequence[Prompt], after: Sequence[Prompt], order: int
) -> tuple[Rule, list[Prompt]]:
    """A rule that knows one tokenizer, and the requests that come under the other."""
    numbers = random.Random(order).sample(range(len(before)), len(before))  # noqa: S311 - a benchmark's dice
    at, rule = len(before) // 4, make()
    for number in numbers[:at]:
        _learn(rule, before[number])
    return rule, [after[number] for number in numbers[at:]]


def _until_close(rule: Rule, rest: Sequence[Prompt]) -> float:
    """Requests until all of them would be estimated within CLOSE; infinite where they never are."""
    for number, prompt in enumerate(rest):
        if number % STEP == 0 and abs(error_of_sum([_guessed(rule, one) for one in rest])) <= CLOSE:
            return number
        _learn(rule, prompt)
    return np.inf


def _later_error(make: Callable[[], Rule], before: Sequence[Prompt], after: Sequence[Prompt]) -> float:
    later = []
    for order in range(ORDERS):
        rule, rest = _swapped(make, before, after, order)
        for number, prompt in enumerate(rest[:LATER]):
            if number >= SOON:
                later.append(_guessed(rule, prompt))
            _learn(rule, prompt)
    return abs(error_of_sum(later))


def _guessed(rule: Rule, prompt: Prompt) -> Guessed:
    """By what is known now."""
    return Guessed(prompt, rule.guess(prompt.kind, prompt.facts))


def _learn(rule: Rule, prompt: Prompt) -> None:
    rule.learn(prompt.kind, prompt.facts, prompt.tokens)
