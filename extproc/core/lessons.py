"""What settled requests teach, in one process: for simulations and benchmarks, and to hold the ledger's script against.

The ledger learns the same by `lua/settle.lua`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from extproc.core import ratios, teachers
from extproc.core.averages import Average, weight
from extproc.core.estimate import (
    NOTHING,
    PRIOR_MESSAGE_TOKENS,
    PRIOR_OUTPUT,
    PRIOR_STREAM_BYTES_PER_TOKEN,
    PRIOR_TEMPLATE,
    Beliefs,
)
from extproc.core.facts import Category
from extproc.core.ratios import PRIORS, Ratio
from extproc.core.teachers import Class, Teacher

SHORT_TEXT_BYTES = 128  # a message; below, the text says more about the template than about the ratio
MOST_MESSAGE_TOKENS = 64.0
OUTPUT_QUANTILE = 0.95
# With a first step of 1 the bound covers 92 % of real answers from the 20th to the 100th; with 3 it covers 95 to 96 %.
OUTPUT_FIRST_STEP, OUTPUT_LAST_STEP = 3.0, 0.05


@dataclass(frozen=True, slots=True)
class Observation:
    """What a settled request teaches."""

    category: Category
    text_bytes: int
    messages: int
    prompt_tokens: int  # the text's share of what the server counted
    stream_bytes: int = 0  # of the answer, where it was streamed
    answers: int = 1  # how many the completion tokens are spread over
    limited: bool = True  # the client set a limit of its own
    cut: bool = False  # the server's length ended the answers, not the client's limit
    bytes_per_token: float = PRIORS[Category.PROSE]  # as believed, where the entitlement has taught nothing yet
    message_tokens: float = PRIOR_MESSAGE_TOKENS


class Lessons:
    """Of one model."""

    def __init__(self) -> None:
        self._ratios: dict[tuple[Category, str], Ratio] = {}
        self._overheads: dict[str, Average] = {}
        self._outputs: dict[tuple[str, bool], Average] = {}
        self._classes: dict[Category, Class] = {}
        self._overhead_class: Class = ()
        self._stream = NOTHING

    def beliefs(self, entitlement: str, category: Category) -> Beliefs:
        return Beliefs(
            of_model=teachers.of_category(category, self._classes),
            of_entitlement=self._ratios.get((category, entitlement), Ratio()).average,
            overhead_of_model=teachers.consensus(self._overhead_class, PRIOR_TEMPLATE),
            overhead_of_entitlement=self._overheads.get(entitlement, NOTHING),
            output=self._output(entitlement, limited=True),
            open_output=self._output(entitlement, limited=False),
            stream_bytes_per_token=self._stream.mean if self._stream.n else PRIOR_STREAM_BYTES_PER_TOKEN,
        )

    def learn(self, entitlement: str, seen: Observation, completion_tokens: int) -> None:
        self._learn_prompt(entitlement, seen)
        if completion_tokens == 0:
            return
        key = entitlement, seen.limited
        known = self._output(entitlement, limited=seen.limited)
        self._outputs[key] = learn_output(known, completion_tokens / seen.answers, cut=seen.cut)
        if seen.stream_bytes:
            self._stream = nearer(self._stream, seen.stream_bytes / completion_tokens)

    def _output(self, entitlement: str, *, limited: bool) -> Average:
        return self._outputs.get((entitlement, limited), PRIOR_OUTPUT)

    def _learn_prompt(self, entitlement: str, seen: Observation) -> None:
        known = self._ratios.get((seen.category, entitlement), Ratio())
        overhead = self._overheads.get(entitlement, NOTHING)
        if seen.messages and seen.text_bytes < SHORT_TEXT_BYTES * seen.messages:
            ratio = known.mean if known.n else seen.bytes_per_token
            beside = (seen.prompt_tokens - seen.text_bytes / ratio) / seen.messages
            learned = nearer(overhead, min(max(beside, 0.0), MOST_MESSAGE_TOKENS))
            self._overheads[entitlement] = learned
            self._overhead_class = teachers.joined(self._overhead_class, Teacher(entitlement, learned))
        elif seen.text_bytes:
            each = overhead.mean if overhead.n else seen.message_tokens
            ratio_now = ratios.learn(known, seen.text_bytes, seen.prompt_tokens - each * seen.messages)
            self._ratios[seen.category, entitlement] = ratio_now
            teacher = Teacher(entitlement, ratio_now.average)
            self._classes[seen.category] = teachers.joined(self._classes.get(seen.category, ()), teacher)


def nearer(average: Average, observed: float) -> Average:
    """One more observation; keeps no deviation."""
    n = average.n + 1
    return Average(n, average.mean + weight(n) * (observed - average.mean))


def learn_output(average: Average, tokens: float, *, cut: bool = False) -> Average:
    """One more length of an answer; tracks its OUTPUT_QUANTILE (Robbins and Monro 1951, on the logarithm).

    `cut`: it would have been longer. Whether longer than the quantile, a shorter one does not tell: it teaches nothing.
    """
    if cut and average.n > 0 and tokens <= average.mean:
        return average
    n = average.n + 1
    mean = float(tokens) if average.n == 0 else average.mean
    step = max(OUTPUT_LAST_STEP, OUTPUT_FIRST_STEP / math.sqrt(n))
    direction = OUTPUT_QUANTILE if tokens > mean else OUTPUT_QUANTILE - 1
    return Average(n, max(1.0, mean * math.exp(step * direction)))
