"""Requests as the estimator sees them, beside the tokens that real tokenizers make of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from extproc.bench import asks
from extproc.bench.vocabularies import VOCABULARIES, Count
from extproc.core.facts import Api, RequestFacts
from extproc.core.refusal import Refusal
from extproc.core.request import read


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request under one tokenizer."""

    kind: str
    facts: RequestFacts
    tokens: int  # of the prompt, truly
    output: int  # tokens that it may generate


Kinds = Mapping[str, Sequence[Prompt]]
Prompts = Mapping[str, Kinds]  # by tokenizer
Progress = Callable[[float], None]  # told the share that is done


def tokenized(
    kinds: Sequence[str], vocabularies: Sequence[str], count: int, seed: int, progress: Progress = lambda _: None
) -> Prompts:
    """`count` requests of each kind under each tokenizer. Raises MissingPackage."""
    counts = {name: VOCABULARIES[name]() for name in vocabularies}
    found: dict[str, dict[str, Sequence[Prompt]]] = {name: {} for name in vocabularies}
    for done, kind in enumerate(kinds):
        made = asks.make(kind, count, seed)
        facts = [facts_of(ask.body) for ask in made]
        for part, (name, counted) in enumerate(counts.items()):
            found[name][kind] = tuple(map(_prompt, made, facts, _tokens(counted, made)))
            progress((done + (part + 1) / len(counts)) / len(kinds))
    return found


def interleaved(kinds: Kinds, seed: int) -> Iterator[Prompt]:
    """One of each kind, then another of each, in an order of the seed's."""
    draw = random.Random(seed)  # noqa: S311 - a benchmark's dice
    shuffled = [draw.sample(prompts, len(prompts)) for prompts in kinds.values()]
    for together in zip(*shuffled, strict=True):
        yield from draw.sample(together, len(together))


def facts_of(body: bytes) -> RequestFacts:
    """Of a chat request that was made here, and so can be read."""
    found = read(Api.CHAT, body)
    if isinstance(found, Refusal):
        raise TypeError(found.message)
    return found


def _tokens(counted: Count, made: Sequence[asks.Ask]) -> Iterator[int]:
    tokens = iter(counted([piece for ask in made for piece in ask.pieces]))
    return (sum(next(tokens) for _ in ask.pieces) + ask.specials for ask in made)


def _prompt(ask: asks.Ask, facts: RequestFacts, tokens: int) -> Prompt:
    return Prompt(ask.kind, facts, tokens, ask.output)
