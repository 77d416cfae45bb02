"""Which pools may take a request: by its true length, or as the sidecar says, from bytes and what it has learned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from extproc.beliefs import REFRESH_SECONDS
from extproc.core import estimate, routing
from extproc.core.estimate import Beliefs, Estimate
from extproc.core.facts import Api, Category, RequestFacts
from extproc.core.lessons import Lessons, Observation
from extproc.core.policy import SIMULATED, Model, Routing, Vector
from extproc.core.policy import Pool as ModelPool
from extproc.core.refusal import Refusal
from extproc.fleet.fleet import Fleet
from extproc.fleet.texts import Texts
from extproc.traces.trace import Trace

SIGMAS = Routing().sigmas


class Route(NamedTuple):
    pools: tuple[int, ...]  # in order of preference; none: the request is refused
    reserved_tokens: int  # KV tokens it is thought to need
    tries_again: Callable[[int], bool] = lambda _: False  # whether this pool's 400 leads to a try on the next one


class Router(Protocol):
    def route(self, number: int) -> Route: ...

    def ended(self, number: int, generated: int) -> None:
        """The server has said how many tokens that request really had."""


class ByLength:
    """Knows the true total: the shortest pool that can hold it."""

    def __init__(self, trace: Trace, fleet: Fleet) -> None:
        lengths = [pool.max_model_len for pool in fleet.pools]
        self.pools = np.searchsorted(lengths, trace.total_tokens)  # (n,) len(lengths): no pool can
        self._total: list[int] = trace.total_tokens.tolist()
        self._preferred: list[int] = self.pools.tolist()
        self._orders = [_order(first, len(lengths), spill=fleet.spill) for first in range(len(lengths))] + [()]

    def route(self, number: int) -> Route:
        return Route(self._orders[self._preferred[number]], self._total[number])

    def ended(self, number: int, generated: int) -> None:
        pass


def _order(first: int, pools: int, *, spill: bool) -> tuple[int, ...]:
    return tuple(range(first, pools if spill else first + 1))


class ByEstimate:
    """The sidecar's own estimate and routing; clients are entitlements. It learns of each request when that ends."""

    def __init__(
        self, trace: Trace, fleet: Fleet, texts: Texts, *, sigmas: float = SIGMAS, limited: bool = True
    ) -> None:
        """`limited`: each request asks for as much as its answer has; else none sets a limit."""
        self._model = model_of(fleet, sigmas)
        self._names = {pool.name: number for number, pool in enumerate(fleet.pools)}
        self._arrival_s: list[float] = trace.arrival_s.tolist()
        self._prompts: list[int] = trace.prompt_tokens.tolist()
        self._outputs: list[int] = trace.output_tokens.tolist()
        self._clients: list[int] = trace.client.tolist()
        self._tenants = trace.clients
        self._texts = texts
        self._limited = limited
        self._lessons = Lessons()
        self._read: dict[tuple[str, Category], tuple[float, Beliefs]] = {}  # when, and what, as sidecars keep it
        self.errors: list[float] = []  # of each estimate of a prompt, relative, in the order of requests

    def route(self, number: int) -> Route:
        facts = self._facts(number)
        found = estimate.estimate(facts, self._model, self._beliefs(number, facts.category))
        self.errors.append(found.likely_prompt / self._prompts[number] - 1)
        pools = routing.candidates(self._model, found)
        if isinstance(pools, Refusal):
            return Route((), 0)
        return Route(tuple([self._names[name] for name in pools]), found.reserved, partial(self._tries_again, found))

    def _tries_again(self, found: Estimate, pool: int) -> bool:
        pools, spill = self._model.pools, self._model.routing.spill
        return spill and routing.near_limit(self._model, pools[pool].name, found)

    def ended(self, number: int, generated: int) -> None:
        category = self._texts.categories[number]
        lesson = Observation(
            category=category,
            text_bytes=self._texts.bytes_list[number],
            messages=0,
            prompt_tokens=self._prompts[number],
            limited=self._limited,
            cut=generated < self._outputs[number],
        )
        self._lessons.learn(self._tenants[self._clients[number]], lesson, generated)

    def _facts(self, number: int) -> RequestFacts:
        return RequestFacts(
            api=Api.COMPLETIONS,
            model=self._model.name,
            category=self._texts.categories[number],
            text_bytes=self._texts.bytes_list[number],
            max_output=self._outputs[number] if self._limited else None,
        )

    def _beliefs(self, number: int, category: Category) -> Beliefs:
        now, tenant = self._arrival_s[number], self._tenants[self._clients[number]]
        known = self._read.get((tenant, category))
        if known is None or now - known[0] >= REFRESH_SECONDS:
            known = self._read[tenant, category] = now, self._lessons.beliefs(tenant, category)
        return known[1]


def model_of(fleet: Fleet, sigmas: float = SIGMAS) -> Model:
    """The fleet as the configuration would have it."""
    pools = tuple(
        ModelPool(
            name=pool.name,
            endpoints=(SIMULATED,) * pool.servers,
            max_model_len=pool.max_model_len,
            server_capacity=Vector(0, pool.slots.kv_tokens, pool.slots.max_num_seqs),
        )
        for pool in fleet.pools
    )
    return Model("model", pools, routing=Routing(pools[0].max_model_len, sigmas, fleet.spill))
