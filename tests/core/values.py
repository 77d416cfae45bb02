"""Policy and facts as most tests of the core want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from extproc.core.averages import Average
from extproc.core.estimate import Beliefs, Estimate
from extproc.core.facts import Api, Category, RequestFacts
from extproc.core.policy import Entitlement, Model, Pool, Routing, ServiceClass, Vector
from extproc.core.ticket import Ticket

AMPLE = Vector(1_000, 1_000_000, 100)
CHAT = RequestFacts(Api.CHAT, "m", Category.PROSE, text_bytes=400, messages=0, max_output=100)
SURE = Beliefs(of_model=Average(100, 4.0, 0.0), output=Average(100, 50.0), open_output=Average(100, 70.0))
TICKET = Ticket(
    lease="l1",
    model="m",
    entitlement="acme",
    pool="short",
    api=Api.CHAT,
    category=Category.PROSE,
    stream=False,
    text_bytes=400,
    messages=1,
    known_tokens=0,
    prompt_estimate=100,
    reserved_tokens=200,
    prompts=1,
    answers=1,
    asked_tokens=100,
    retriable=False,
    traceparent="",
)


def facts(**changes: Any) -> RequestFacts:
    return replace(CHAT, **changes)


def model(*lengths: int, routing: Routing | None = None, thresholds: Sequence[int | None] = (), **rest: Any) -> Model:
    """Pools named p0, p1, ... of one server each, with these lengths, and thresholds of their own."""
    pools = (
        Pool(f"p{i}", (f"http://127.0.0.1:{i + 1}",), length, AMPLE, threshold)
        for i, (length, threshold) in enumerate(zip_longest(lengths or (8192, 65536), thresholds))
    )
    return Model("m", tuple(pools), routing=routing or Routing(), **rest)


def entitlement(
    name: str = "acme", service_class: ServiceClass = ServiceClass.GUARANTEED, **changes: Any
) -> Entitlement:
    vector = Vector(100, 10_000, 4)
    return replace(Entitlement(name, "m", service_class, base=vector, caps=vector), **changes)


def budget_of(budget: int, hopeful: int | None = None) -> Estimate:
    """An estimate of a whole budget, and of the least that the request may need."""
    return Estimate(
        likely_prompt=budget,
        budget_prompt=budget,
        output=0,
        reserved_output=0,
        sequence_budget=budget,
        longest_likely=budget if hopeful is None else hopeful,
        bytes_per_token=4.0,
    )
