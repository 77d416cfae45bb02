"""The whole benchmark of the estimator, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extproc.bench import accuracy, asks, drift, outputs, teaching
from extproc.bench.accuracy import Guessed, Score, Tenant
from extproc.bench.costs import Cost, costs
from extproc.bench.drift import Drift
from extproc.bench.outputs import Coverage
from extproc.bench.prompts import Progress, Prompts, tokenized
from extproc.bench.rules import LEARNING, RULES, Learned
from extproc.bench.teaching import Borrowing, Poisoning
from extproc.bench.vocabularies import VOCABULARIES

TENANTS: Mapping[str, Tenant] = {"each kind its own": accuracy.each_its_own, "one for all": accuracy.one_for_all}
TINY = "tiny"
_TOKENIZING = 0.5  # of the time


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    kinds: tuple[str, ...]
    vocabularies: tuple[str, ...]
    swaps: tuple[tuple[str, str], ...]  # of tokenizers
    requests: int  # of each kind
    orders: int  # in which they come


QUICK = Size(
    kinds=("english", "code", "json", "chinese", "russian", "tools"),
    vocabularies=("cl100k", TINY),
    swaps=(("cl100k", TINY), (TINY, "cl100k")),
    requests=200,
    orders=8,
)
FULL = Size(
    kinds=asks.kinds(),
    vocabularies=tuple(VOCABULARIES),
    swaps=(("cl100k", "cl100k"), *QUICK.swaps, ("cl100k", "deepseek"), (TINY, "o200k")),  # the first is no change
    requests=800,
    orders=3,
)


@dataclass(frozen=True, slots=True)
class Scored:
    rule: str
    tenants: str
    vocabulary: str
    kind: str
    score: Score


@dataclass(frozen=True, slots=True)
class Drifted:
    rule: str
    drift: Drift


@dataclass(frozen=True, slots=True)
class Poisoned:
    rule: str
    poisoning: Poisoning


@dataclass(frozen=True, slots=True)
class Report:
    size: Size
    seed: int
    scores: tuple[Scored, ...]
    curves: Mapping[str, list[float]]  # by rule: see accuracy.curve
    drifts: tuple[Drifted, ...]
    poisonings: tuple[Poisoned, ...]
    borrowings: tuple[Borrowing, ...]  # under the tiny tokenizer
    coverages: tuple[Coverage, ...]
    costs: tuple[Cost, ...]

    def of(self, rule: str, tenants: str) -> tuple[Scored, ...]:
        return tuple(one for one in self.scores if (one.rule, one.tenants) == (rule, tenants))


def measure(size: Size, seed: int, lengths: Mapping[str, Sequence[float]], progress: Progress) -> Report:
    """`lengths` are answers of traces, if any. Raises MissingPackage."""
    timed = costs(seed)  # before there is much for the garbage collector to walk
    prompts = tokenized(size.kinds, size.vocabularies, size.requests, seed, lambda share: progress(_TOKENIZING * share))
    scores, curves = _rules(size, prompts, lambda share: progress(_TOKENIZING + (1 - _TOKENIZING) * share))
    mostly = prompts[size.vocabularies[0]]
    return Report(
        size,
        seed,
        scores,
        curves,
        drifts=tuple(
            Drifted(rule, drift.swapped(make, prompts, *swap)) for rule, make in LEARNING.items() for swap in size.swaps
        ),
        poisonings=tuple(
            Poisoned(rule, one)
            for rule, make in LEARNING.items()
            for one in teaching.poisoned(make, mostly["english"], mostly["code"])
        ),
        borrowings=teaching.borrowed(Learned, prompts[TINY]),
        coverages=tuple(outputs.coverage(*named) for named in {**lengths, **outputs.drawn(seed)}.items()),
        costs=timed,
    )


def _rules(size: Size, prompts: Prompts, progress: Progress) -> tuple[tuple[Scored, ...], dict[str, list[float]]]:
    scores, curves = [], {}
    done, all_runs = 0, len(RULES) * len(TENANTS) * len(prompts)
    for rule in RULES:
        runs: list[Mapping[str, Sequence[Guessed]]] = []
        for tenants in TENANTS:
            for vocabulary in prompts:
                orders = _orders(size, rule, tenants, prompts, vocabulary)
                scores.extend(_scored(orders, rule, tenants, vocabulary))
                runs.extend(orders if TENANTS[tenants] is accuracy.each_its_own else ())
                done += 1
                progress(done / all_runs)
        curves[rule] = accuracy.curve(runs).tolist()
    return tuple(scores), curves


def _orders(size: Size, rule: str, tenants: str, prompts: Prompts, vocabulary: str) -> list[dict[str, list[Guessed]]]:
    return [accuracy.run(RULES[rule](), prompts[vocabulary], order, TENANTS[tenants]) for order in range(size.orders)]


def _scored(
    orders: Sequence[Mapping[str, Sequence[Guessed]]], rule: str, tenants: str, vocabulary: str
) -> list[Scored]:
    return [
        Scored(rule, tenants, vocabulary, kind, accuracy.score([order[kind] for order in orders])) for kind in orders[0]
    ]
