"""What the operator promised: models, pools, entitlements. Frozen values; `config` makes them from the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

SIMULATED = "sim://"  # scheme of the endpoints that `tokenpool up` simulates
DEFAULT_WINDOW_SECONDS = 10  # how many seconds of a rate a bucket may hold when the file does not say


class ServiceClass(StrEnum):
    DEDICATED = "dedicated"
    GUARANTEED = "guaranteed"
    ELASTIC = "elastic"
    SPOT = "spot"
    PREEMPTIBLE = "preemptible"

    @property
    def tier(self) -> int:
        """Who goes first: the lower number. Each class is a tier of its own."""
        return _TIERS[self]

    @property
    def promised(self) -> bool:
        """Whether its base is never refused while the servers live."""
        return self in (ServiceClass.DEDICATED, ServiceClass.GUARANTEED)

    @property
    def surplus(self) -> bool:
        """Whether it has no base and lives on what others leave."""
        return self in (ServiceClass.SPOT, ServiceClass.PREEMPTIBLE)


_TIERS = {service_class: tier for tier, service_class in enumerate(ServiceClass)}


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
    threshold_tokens: int | None = None  # larger budgets prefer a longer pool; None: see core/routing.py

    @property
    def capacity(self) -> Vector:
        return self.server_capacity.times(len(self.endpoints))


@dataclass(frozen=True, slots=True)
class Routing:
    threshold_tokens: int = 8192  # of the shortest pool; papers: 4K-16K keep over 80 % of the best gain
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
class Sharing:
    """How what is not claimed of the promises is lent and shared. The constants are our own choice."""

    lend_to_spot: bool = True  # idle guaranteed bases; False: only preemptible requests borrow them
    headroom_requests: int = 1  # of a guaranteed entitlement's idle base, how many large requests stay unlent
    elastic_weight: float = 4.0
    spot_weight: float = 1.0
    preemptible_weight: float = 0.5
    slo_reference_ms: int = 1000  # an SLO of so much weighs 1
    slo_exponent: float = 0.25
    overuse_discount: float = 1.0  # 1: twice the base in use halves the weight
    debt_seconds: float = 30.0  # time constant of the decay
    debt_gain: float = 2.0794415416798357  # ln 8: full debt outweighs the largest ratio of two SLO factors, 4


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many servers a pool should have."""

    target_utilisation: float = 0.8  # of what is in demand beside the promises
    scale_down_seconds: int = 300  # how long fewer servers must have been enough


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
    sharing: Sharing = field(default_factory=Sharing)
    scaling: Scaling = field(default_factory=Scaling)

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
    max_waiting: int = 100  # requests that may wait at a time
    prioritise: Prioritise = Prioritise.NONE
    market: MarketTerms | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    models: tuple[Model, ...]
    entitlements: tuple[Entitlement, ...]

    def entitlements_of(self, model: str) -> tuple[Entitlement, ...]:
        """Those of one model, in the order of the policy."""
        return tuple(entitlement for entitlement in self.entitlements if entitlement.model == model)
