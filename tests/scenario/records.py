"""Outcomes and records as a run would leave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from extproc.scenario.loads import Request
from extproc.scenario.outcomes import Ending, Outcome
from extproc.scenario.running import Plan, Record
from extproc.scenario.watching import Sample, TenantSample


def outcome(tenant: str = "guaranteed", at: float = 0.0, first_token: float | None = 0.1, **other: Any) -> Outcome:
    ending = other.pop("ending", Ending.DONE)
    values = {"status": 200, "reason": "", "end": 1.0, "tokens": 10, **other}
    return Outcome(Request(0, tenant, at, 10), ending, first_token=first_token, **values)


def refused(tenant: str = "guaranteed", at: float = 0.0) -> Outcome:
    values = {"status": 429, "reason": "concurrency", "end": 0.0, "tokens": 0}
    return outcome(tenant, at, None, ending=Ending.REFUSED, **values)


def standing(**values: float) -> TenantSample:
    whole: dict[str, Any] = {"in_use": 0, "share": 5.0, "cap": 8.0, "debt": 0.0, "weight": 1.0, "waiting": 0, **values}
    return TenantSample(**whole)


def sample(at: float, tenants: dict[str, TenantSample], server_tokens: int = 0) -> Sample:
    return Sample(at, 1, server_tokens, tenants)


def record(plan: Plan, outcomes: Iterable[Outcome] = (), samples: Iterable[Sample] = (), tokens: int = 0) -> Record:
    kept = tuple(outcomes)
    counts = Counter({(one.tenant, int(one.request.at)): one.tokens for one in kept})
    return Record(plan, kept, tuple(samples), counts, tokens)
