"""What admission weighs: the buckets of an entitlement, the terms of a pool, and what could never fit either.

The decision itself is one atomic step in `lua/admit.lua`, over these figures. Rates follow RFC 4115: a committed
bucket (the base) and an excess bucket (from the base up to the burst cap); a request that is inside the base takes
from the first alone, so bursting never spends what is promised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from extproc.core.policy import DEFAULT_WINDOW_SECONDS, Entitlement, Model, Policy, Pool, ServiceClass, Vector
from extproc.core.refusal import Reason

MILLI = 1000  # levels are millitokens, so that tokens/s times milliseconds stays an integer


@dataclass(frozen=True, slots=True)
class Buckets:
    """Rates in tokens/s, depths in tokens."""

    base_rate: int
    base_depth: int
    excess_rate: int
    excess_depth: int

    @property
    def depth(self) -> int:
        return self.base_depth + self.excess_depth


@dataclass(frozen=True, slots=True)
class Promise:
    """The bases of one class: what they may still claim of a pool when they use nothing; `depth` in tokens."""

    kv_tokens: int = 0
    concurrency: int = 0
    rate: int = 0
    depth: int = 0


@dataclass(frozen=True, slots=True)
class PoolTerms:
    """One pool's capacity and the promises that stand against it."""

    name: str
    servers: int  # as configured; those that answer may be fewer
    server: Vector
    depth: int  # of the pool's token bucket, in tokens
    dedicated: Promise
    guaranteed: Promise
    elastic: Promise
    headroom: Vector  # of the idle guaranteed bases, what is not lent; no rate
    lend_to_spot: bool

    @property
    def capacity(self) -> Vector:
        return self.server.times(self.servers)

    @property
    def free_depth(self) -> int:
        """The largest request, in tokens, that a class without a promise can ever be given."""
        return self.depth - self.guaranteed.depth - self.elastic.depth


def buckets(entitlement: Entitlement) -> Buckets:
    base, window = entitlement.base.tokens_per_second, entitlement.window_seconds
    excess = entitlement.caps.tokens_per_second - base
    return Buckets(base, base * window, excess, excess * window)


def terms_of(model: Model, policy: Policy) -> tuple[PoolTerms, ...]:
    """The terms of a model's pools, in its order."""
    entitlements = policy.entitlements_of(model.name)
    return tuple(_terms(model, pool, entitlements) for pool in model.pools)


def _terms(model: Model, pool: Pool, entitlements: Iterable[Entitlement]) -> PoolTerms:
    """Every promise stands against every pool of the model: a tenant may need any of them.

    The depth lets every promise be claimed at once and leaves room for the largest request or ten seconds of rate.
    """
    promises = {
        one: _promise([e for e in entitlements if e.service_class is one])
        for one in (ServiceClass.DEDICATED, ServiceClass.GUARANTEED, ServiceClass.ELASTIC)
    }
    guaranteed, elastic = promises[ServiceClass.GUARANTEED], promises[ServiceClass.ELASTIC]
    free = max(pool.capacity.tokens_per_second * DEFAULT_WINDOW_SECONDS, pool.max_model_len)
    requests, server = model.sharing.headroom_requests, pool.server_capacity
    return PoolTerms(
        name=pool.name,
        servers=len(pool.endpoints),
        server=server,
        depth=guaranteed.depth + elastic.depth + free,
        dedicated=promises[ServiceClass.DEDICATED],
        guaranteed=guaranteed,
        elastic=elastic,
        headroom=Vector(0, requests * server.kv_tokens // max(1, server.concurrency), requests),
        lend_to_spot=model.sharing.lend_to_spot,
    )


def _promise(entitlements: list[Entitlement]) -> Promise:
    total = Vector()
    for entitlement in entitlements:
        total += entitlement.base
    depth = sum(buckets(entitlement).base_depth for entitlement in entitlements)
    return Promise(total.kv_tokens, total.concurrency, total.tokens_per_second, depth)


def never_fits(entitlement: Entitlement, tokens: int, kv_tokens: int) -> Reason | None:
    """The unit in which one request is larger than its entitlement's caps could ever hold."""
    if tokens > buckets(entitlement).depth:
        return Reason.TOKENS_PER_SECOND
    if kv_tokens > entitlement.caps.kv_tokens:
        return Reason.KV_TOKENS
    return None


def pools_that_can_hold(
    entitlement: Entitlement, terms_of_pools: Iterable[PoolTerms], tokens: int, kv_tokens: int
) -> set[str]:
    """The pools that would take the request if nothing else were running: for others, waiting could not help."""
    return {pool.name for pool in terms_of_pools if _could_hold(entitlement, pool, tokens, kv_tokens)}


def _could_hold(entitlement: Entitlement, pool: PoolTerms, tokens: int, kv_tokens: int) -> bool:
    base, capacity = entitlement.base, pool.capacity
    inside = entitlement.service_class.promised and kv_tokens <= base.kv_tokens and base.concurrency > 0
    kept_kv, kept_slots = _kept_inside(entitlement, pool) if inside else _kept(entitlement, pool, kv_tokens)
    fits = capacity.kv_tokens - kept_kv >= kv_tokens and capacity.concurrency - kept_slots > 0
    return fits and (inside or tokens <= pool.free_depth + buckets(entitlement).base_depth)


def _kept_inside(entitlement: Entitlement, pool: PoolTerms) -> tuple[int, int]:
    """KV tokens and slots that a request inside a promised base leaves to others."""
    if entitlement.service_class is ServiceClass.DEDICATED:
        return 0, 0
    return pool.dedicated.kv_tokens, pool.dedicated.concurrency


def _kept(entitlement: Entitlement, pool: PoolTerms, kv_tokens: int) -> tuple[int, int]:
    """KV tokens and slots that any other leaves. Its own promised base is among them, less what it uses of it."""
    guaranteed = _kept_of_guaranteed(entitlement, pool)
    own = entitlement.base if entitlement.service_class.promised else Vector()
    return (
        pool.dedicated.kv_tokens + guaranteed.kv_tokens - min(kv_tokens, own.kv_tokens),
        pool.dedicated.concurrency + guaranteed.concurrency - min(1, own.concurrency),
    )


def _kept_of_guaranteed(entitlement: Entitlement, pool: PoolTerms) -> Vector:
    """What of idle guaranteed bases is out of an entitlement's reach: all but for those they are lent to."""
    whole = Vector(0, pool.guaranteed.kv_tokens, pool.guaranteed.concurrency)
    lent = entitlement.service_class is ServiceClass.PREEMPTIBLE or (
        entitlement.service_class is ServiceClass.SPOT and pool.lend_to_spot
    )
    if not lent:
        return whole
    head = pool.headroom
    return Vector(0, min(whole.kv_tokens, head.kv_tokens), min(whole.concurrency, head.concurrency))
