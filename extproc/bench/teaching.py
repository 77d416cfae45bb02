"""What a newcomer is told: beside a tenant that lies, and where nobody has sent anything of the kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extproc.bench.accuracy import Guessed, error_of_sum
from extproc.bench.prompts import Kinds, Prompt
from extproc.bench.rules import Rule, Static
from extproc.core.facts import Api, Category, RequestFacts

HONEST = (0, 1, 3)
HONEST_REQUESTS = 50  # of each honest tenant
HOSTILE_REQUESTS = 3000
HOSTILE_BYTES = 4000  # of a text
ABSURD = (1.0, 16.0)  # bytes a token: rare characters, and one word that a vocabulary has whole, over and over
LISTENED = 100  # requests of the newcomer, none of which teaches


@dataclass(frozen=True, slots=True)
class Poisoning:
    """How far one hostile tenant moves a newcomer's likely tokens: 0.1 is a tenth more."""

    bytes_per_token: float
    honest: int
    moved: float  # of texts of the kind that the hostile tenant sends
    moved_others: float  # of texts of another kind, which nobody has sent


@dataclass(frozen=True, slots=True)
class Borrowing:
    """The first estimates in a category of which nobody has sent anything."""

    category: str
    told: float  # error of the mean, where others have sent all else
    untold: float  # the same on a new model
    static: float  # the same with 4.0 bytes a token


def poisoned(make: Callable[[], Rule], kind: Sequence[Prompt], another: Sequence[Prompt]) -> tuple[Poisoning, ...]:
    """Honest tenants send the first kind, and so does the hostile one, last and most of all."""
    return tuple(_poisoning(make, kind, another, absurd, honest) for absurd in ABSURD for honest in HONEST)


def _poisoning(
    make: Callable[[], Rule], kind: Sequence[Prompt], another: Sequence[Prompt], absurd: float, honest: int
) -> Poisoning:
    rule = make()
    for number in range(honest):
        for prompt in kind[number::honest][:HONEST_REQUESTS]:
            rule.learn(f"honest {number}", prompt.facts, prompt.tokens)
    before = _likely(rule, kind), _likely(rule, another)
    facts = RequestFacts(Api.CHAT, "m", kind[0].facts.category, HOSTILE_BYTES, messages=1)
    for _ in range(HOSTILE_REQUESTS):
        rule.learn("hostile", facts, round(HOSTILE_BYTES / absurd))
    return Poisoning(absurd, honest, _likely(rule, kind) / before[0] - 1, _likely(rule, another) / before[1] - 1)


def _likely(rule: Rule, prompts: Sequence[Prompt]) -> int:
    return sum(rule.guess("newcomer", prompt.facts).likely for prompt in prompts[:LISTENED])


def borrowed(make: Callable[[], Rule], kinds: Kinds) -> tuple[Borrowing, ...]:
    """For each category that a kind of its own is mostly made of."""
    return tuple(_borrowing(make, kinds, category) for category in _categories(kinds))


def _categories(kinds: Kinds) -> list[Category]:
    """Those in which there is enough to listen to, in their own order."""
    found = [prompt.facts.category for prompts in kinds.values() for prompt in prompts]
    return [category for category in Category if found.count(category) >= LISTENED]


def _borrowing(make: Callable[[], Rule], kinds: Kinds, category: Category) -> Borrowing:
    told = make()
    for kind, prompts in kinds.items():
        for prompt in prompts[:HONEST_REQUESTS]:
            if prompt.facts.category is not category:
                told.learn(kind, prompt.facts, prompt.tokens)
    asked = [prompt for prompts in kinds.values() for prompt in prompts if prompt.facts.category is category]
    return Borrowing(category, *(_first_error(rule, asked) for rule in (told, make(), Static())))


def _first_error(rule: Rule, prompts: Sequence[Prompt]) -> float:
    return error_of_sum(Guessed(prompt, rule.guess("newcomer", prompt.facts)) for prompt in prompts)
