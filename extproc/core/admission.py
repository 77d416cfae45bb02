"""What admission weighs: the buckets of an entitlement, the terms of a pool, and what could never fit either.

The decision itself is one atomic step in `lua/admit.lua`, over these figures. Rates follow RFC 4115: a committed
bucket (the base) and an excess bucket (from the base up to the burst cap); a request that is inside the base takes
from the first alone, so bursting never spends what is promised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from extproc.core.policy import DEFAULT_WINDOW_SECONDS, Entitlement, Model, Policy, Pool, Vector
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
    """What the entitlements of one tier may still claim of a pool when they use nothing; `depth` in tokens."""

    kv_tokens: int = 0
    concurrency: int = 0
    rate: int = 0
    depth: int = 0


@dataclass(frozen=True, slots=True)
class PoolTerms:
    """One pool's capacity and the promises that stand against it; `depth` is its bucket's, in tokens."""

    name: str
    capacity: Vector
    depth: int
    promises: tuple[Promise, Promise]  # to tier 0 (dedicated, guaranteed) and tier 1 (elastic)

    @property
    def free_depth(self) -> int:
        """The largest request, in tokens, that a class without a promise can ever be given."""
        return self.depth - self.promises[0].depth - self.promises[1].depth


def buckets(entitlement: Entitlement) -> Buckets:
    base, window = entitlement.base.tokens_per_second, entitlement.window_seconds
    excess = entitlement.caps.tokens_per_second - base
    return Buckets(base, base * window, excess, excess * window)


def terms(pool: Pool, entitlements: Iterable[Entitlement]) -> PoolTerms:
    """The terms of one pool. Every promise stands against every pool of the model: a tenant may need any of them.

    The depth lets every promise be claimed at once and leaves room for the largest request or ten seconds of rate.
    """
    tiers: tuple[list[Entitlement], list[Entitlement]] = ([], [])
    for entitlement in entitlements:
        if entitlement.service_class.tier < len(tiers):
            tiers[entitlement.service_class.tier].append(entitlement)
    promises = (_promise(tiers[0]), _promise(tiers[1]))
    rate = pool.capacity.tokens_per_second
    free = max(rate * DEFAULT_WINDOW_SECONDS, pool.max_model_len)
    return PoolTerms(pool.name, pool.capacity, promises[0].depth + promises[1].depth + free, promises)


def terms_of(model: Model, policy: Policy) -> tuple[PoolTerms, ...]:
    """The terms of a model's pools, in its order."""
    entitlements = [entitlement for entitlement in policy.entitlements if entitlement.model == model.name]
    return tuple(terms(pool, entitlements) for pool in model.pools)


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
    tier, base, capacity = entitlement.service_class.tier, entitlement.base, pool.capacity
    if tier == 0 and kv_tokens <= base.kv_tokens and base.concurrency > 0:
        return capacity.kv_tokens >= kv_tokens and capacity.concurrency > 0
    kept = pool.promises[: max(tier, 1)]
    return (
        capacity.kv_tokens - sum(promise.kv_tokens for promise in kept) >= kv_tokens
        and capacity.concurrency - sum(promise.concurrency for promise in kept) > 0
        and tokens <= pool.free_depth + (buckets(entitlement).base_depth if tier == 0 else 0)
    )
