"""Facts that happened, for whoever watches: telemetry turns them into metrics and spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from extproc.core.facts import RequestFacts


@dataclass(frozen=True, slots=True)
class Decided:
    """One verdict. Names are "" where a refusal came before they were known."""

    verdict: str  # "admit" | "refuse"
    reason: str  # core.refusal.Reason, or "" when admitted
    status: int  # HTTP status of a refusal; 200 when admitted
    started_ns: int  # wall clock, Unix epoch
    seconds: float  # how long the verdict took
    model: str = ""
    entitlement: str = ""
    service_class: str = ""
    pool: str = ""
    preferred_pool: str = ""  # admitted by another, it spilled
    facts: RequestFacts | None = None
    prompt_estimate: int = 0  # tokens, likely value
    budget_tokens: int = 0  # what routing used: conservative prompt + the most it may generate
    reserved_tokens: int = 0  # what the lease holds
    bytes_per_token: float = 0.0
    traceparent: str = ""  # W3C, from Envoy's gRPC metadata; "" where Envoy does not trace


@dataclass(frozen=True, slots=True)
class Settled:
    """One settlement that took effect (the first for its lease)."""

    model: str
    entitlement: str
    pool: str
    category: str
    source: str  # "usage": the server said; or another of core.charge.Source
    prompt_tokens: int
    completion_tokens: int
    prompt_estimate: int  # what the verdict expected of the prompt
    reserved_tokens: int
    status: int  # HTTP status; 0 where the client went away
    ttft_seconds: float | None
    duration_seconds: float
    at_ns: int  # wall clock, Unix epoch, when its end was told; where there was no end, when it was settled
    misrouted: bool = False  # its pool's server answered 400 and the next longer pool took it
    truncated: bool = False  # its pool's server cut the answer short, which a longer one might not have done
    traceparent: str = ""


class Observer(Protocol):
    def decided(self, fact: Decided) -> None: ...

    def settled(self, fact: Settled) -> None: ...

    def preempted(self, model: str, entitlement: str, service_class: str) -> None:
        """A request was ended, since its room was claimed by whom it is promised to."""

    def ledger_call(self, operation: str, requests: int, seconds: float) -> None:
        """One round trip to Redis that carried `requests` requests."""

    def ledger_failed(self, operation: str) -> None: ...
