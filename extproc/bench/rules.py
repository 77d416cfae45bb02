"""Rules that estimate a prompt's tokens and learn from its usage: ours, and what has been published, side by side.

All are given the same facts: text bytes and categories. The published ones know no tenants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from extproc.core.estimate import estimate
from extproc.core.facts import Category, RequestFacts
from extproc.core.lessons import Lessons, Observation
from extproc.core.policy import Model

COLD_START = 4.0  # bytes per token, both publications' own
PAPER_BETA, PAPER_GAMMA = 0.95, 2.0  # the paper's own values are not known to us
ROUTER_DECAY, ROUTER_FIRST_USED = 0.995, 10
ROUTER_DOWN, ROUTER_UP = 0.9, 0.1
ROUTER_MESSAGE_TOKENS = 4

MODEL = Model("m", ())


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens of one prompt."""

    likely: int
    careful: int  # what routing goes by


class Rule(Protocol):
    """One model's, of one run."""

    def guess(self, tenant: str, facts: RequestFacts) -> Guess: ...

    def learn(self, tenant: str, facts: RequestFacts, tokens: int) -> None: ...


class Learned:
    """Tokenpool's own."""

    def __init__(self) -> None:
        self.lessons = Lessons()

    def guess(self, tenant: str, facts: RequestFacts) -> Guess:
        found = estimate(facts, MODEL, self.lessons.beliefs(tenant, facts.category))
        return Guess(found.likely_prompt, found.budget_prompt)

    def learn(self, tenant: str, facts: RequestFacts, tokens: int) -> None:
        believed = self.lessons.beliefs(tenant, facts.category)
        seen = Observation(
            facts.category,
            facts.text_bytes,
            facts.messages,
            tokens,
            bytes_per_token=believed.ratio.mean,
            message_tokens=believed.message_tokens,
        )
        self.lessons.learn(tenant, seen, completion_tokens=0)


class Static:
    """One ratio for everything."""

    def guess(self, tenant: str, facts: RequestFacts) -> Guess:  # noqa: ARG002 - a rule's signature
        tokens = _tokens(facts, COLD_START)
        return Guess(tokens, tokens)

    def learn(self, tenant: str, facts: RequestFacts, tokens: int) -> None:
        """It never does."""


class Paper:
    """Dual-pool token-budget routing, arXiv 2604.08075: an average and its mean deviation for each category."""

    def __init__(self) -> None:
        self._known: dict[Category, tuple[float, float]] = {}

    def guess(self, tenant: str, facts: RequestFacts) -> Guess:  # noqa: ARG002 - a rule's signature
        mean, deviation = self._known.get(facts.category, (COLD_START, 0.0))
        careful = max(mean - PAPER_GAMMA * deviation, mean / 4)  # the floor is our own, lest it divide by nothing
        return Guess(_tokens(facts, mean), _tokens(facts, careful))

    def learn(self, tenant: str, facts: RequestFacts, tokens: int) -> None:  # noqa: ARG002 - a rule's signature
        observed = facts.text_bytes / tokens
        mean, deviation = self._known.get(facts.category, (observed, 0.0))
        off = abs(observed - mean)
        self._known[facts.category] = _nearer(mean, observed), _nearer(deviation, off)


def _nearer(mean: float, observed: float) -> float:
    return PAPER_BETA * mean + (1 - PAPER_BETA) * observed


class Asymmetric:
    """What vllm-project/semantic-router does: a slow average, and a cautious one that falls fast and rises slowly.

    `calibrated_token_counter.go` and, for what each message adds, `request_context_estimate.go`.
    """

    def __init__(self) -> None:
        self._known: dict[Category, tuple[int, float, float]] = {}

    def guess(self, tenant: str, facts: RequestFacts) -> Guess:  # noqa: ARG002 - a rule's signature
        n, mean, careful = self._known.get(facts.category, (0, 0.0, 0.0))
        if n < ROUTER_FIRST_USED:
            mean = careful = COLD_START
        framing = ROUTER_MESSAGE_TOKENS * facts.messages
        return Guess(framing + _tokens(facts, mean), framing + _tokens(facts, careful))

    def learn(self, tenant: str, facts: RequestFacts, tokens: int) -> None:  # noqa: ARG002 - a rule's signature
        observed = facts.text_bytes / tokens
        n, mean, careful = self._known.get(facts.category, (0, observed, observed))
        step = ROUTER_DOWN if observed < careful else ROUTER_UP
        mean = ROUTER_DECAY * mean + (1 - ROUTER_DECAY) * observed
        self._known[facts.category] = n + 1, mean, careful + step * (observed - careful)


def _tokens(facts: RequestFacts, bytes_per_token: float) -> int:
    return math.ceil(facts.text_bytes / bytes_per_token)


LEARNED, STATIC = "tokenpool", "static 4.0"
RULES: Mapping[str, Callable[[], Rule]] = {
    LEARNED: Learned,
    "paper": Paper,
    "semantic-router": Asymmetric,
    STATIC: Static,
}
LEARNING: Mapping[str, Callable[[], Rule]] = {name: make for name, make in RULES.items() if name != STATIC}
