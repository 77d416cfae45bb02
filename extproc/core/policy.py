"""What the operator promised: models, pools, entitlements. Frozen values; `config` makes them from the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

DEFAULT_WINDOW_SECONDS = 10  # how many seconds of a rate a bucket may hold when the file does not say


class ServiceClass(StrEnum):
    DEDICATED = "dedicated"
    GUARANTEED = "guaranteed"
    ELASTIC = "elastic"
    SPOT = "spot"
    PREEMPTIBLE = "preemptible"

    @property
    def tier(self) -> int:
        """Whose unclaimed base a class must leave alone: that of every lower tier number."""
        return _TIERS[self]


_TIERS = {
    ServiceClass.DEDICATED: 0,
    ServiceClass.GUARANTEED: 0,
    ServiceClass.ELASTIC: 1,
    ServiceClass.SPOT: 2,
    ServiceClass.PREEMPTIBLE: 3,
}


class StreamUsage(StrEnum):
    """What becomes of the usage event that a streaming client did not ask for."""

    STRIP = "strip"
    PASS = "pass"  # noqa: S105 - not a password


class Reserve(StrEnum):
    """What a lease holds for output."""

    EXPECTED = "expected"
    MAX_TOKENS = "max_tokens"


class Prioritise(StrEnum):
    LARGER = "larger"
    SMALLER = "smaller"
    NONE = "none"


class FailMode(StrEnum):
    """What Envoy does with a request when no sidecar answers."""

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Vector:
    """Capacity or its use in the three units that serving a model takes."""

    tokens_per_second: int = 0
    kv_tokens: int = 0
    concurrency: int = 0

    def __add__(self, other: Vector) -> Vector:
        return Vector(
            self.tokens_per_second + other.tokens_per_second,
            self.kv_tokens + other.kv_tokens,
            self.concurrency + other.concurrency,
        )

    def times(self, count: int) -> Vector:
        return Vector(self.tokens_per_second * count, self.kv_tokens * count, self.concurrency * count)

    def units_above(self, other: Vector) -> tuple[str, ...]:
        """The names of the units in which this vector exceeds the other."""
        return tuple(unit for unit in UNITS if getattr(self, unit) > getattr(other, unit))


UNITS = ("tokens_per_second", "kv_tokens", "concurrency")


@dataclass(frozen=True, slots=True)
class Pool:
    """One set of identical vLLM servers of a model."""

    name: str
    endpoints: tuple[str, ...]  # http://host:port, https://host:port or sim://...
    max_model_len: int
    server_capacity: Vector  # of ONE endpoint

    @property
    def capacity(self) -> Vector:
        return self.server_capacity.times(len(self.endpoints))


@dataclass(frozen=True, slots=True)
class Routing:
    threshold_tokens: int = 8192  # papers: 4K-16K keep over 80 % of the best gain
    sigmas: float = 2.0
    spill: bool = True


@dataclass(frozen=True, slots=True)
class Cost:
    """Weights of a settled token, by kind."""

    prompt: float = 1.0
    cached_prompt: float = 1.0
    completion: float = 1.0


@dataclass(frozen=True, slots=True)
class MediaTokens:
    """What one image or one audio part counts for, since its base64 length says nothing."""

    image: int = 1024
    audio: int = 1024


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    pools: tuple[Pool, ...]  # ordered by max_model_len, shortest first; at least one
    aliases: tuple[str, ...] = ()
    routing: Routing = field(default_factory=Routing)
    stream_usage: StreamUsage = StreamUsage.STRIP
    reserve: Reserve = Reserve.EXPECTED
    cost: Cost = field(default_factory=Cost)
    media: MediaTokens = field(default_factory=MediaTokens)

    @property
    def capacity(self) -> Vector:
        total = Vector()
        for pool in self.pools:
            total += pool.capacity
        return total

    @property
    def max_model_len(self) -> int:
        return self.pools[-1].max_model_len

    def pool(self, name: str) -> Pool:
        """Raises KeyError where the model has no pool of that name."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class MarketTerms:
    price_elasticity: float = 1.0
    budget: float = 0.0  # credits
    period_seconds: int = 86_400


@dataclass(frozen=True, slots=True)
class Entitlement:
    """A tenant's claim on one model.

    `base` is promised (zero for spot and preemptible); `caps` are never exceeded and are at least the base.
    """

    name: str
    model: str
    service_class: ServiceClass
    base: Vector
    caps: Vector
    window_seconds: int = DEFAULT_WINDOW_SECONDS  # seconds of its rates that its buckets hold
    key_hashes: tuple[str, ...] = ()  # "sha256:<64 hex>"
    slo_ttft_ms: int | None = None
    max_wait_ms: int = 0
    prioritise: Prioritise = Prioritise.NONE
    market: MarketTerms | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    models: tuple[Model, ...]
    entitlements: tuple[Entitlement, ...]
