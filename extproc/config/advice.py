"""What a configuration may say but its author probably did not mean."""

from __future__ import annotations

from collections.abc import Iterator

from extproc.config.checks import RESERVED
from extproc.core.policy import Entitlement, Model, Pool, ServiceClass, Vector
from extproc.core.settings import Settings

SURPLUS = (ServiceClass.SPOT, ServiceClass.PREEMPTIBLE)  # who is promised nothing
SMALL_REQUEST_TOKENS = 1024  # an ordinary chat turn; who cannot hold one is refused most of what he asks


def warnings(settings: Settings) -> tuple[str, ...]:
    """One sentence for each thing that is legal but doubtful."""
    entitlements = settings.policy.entitlements
    result = [] if entitlements else ["there are no entitlements: every request will be refused"]
    for model in settings.policy.models:
        own = [entitlement for entitlement in entitlements if entitlement.model == model.name]
        result += [f"model {model.name}: {doubt}" for doubt in _model_doubts(model, own)]
    for entitlement in entitlements:
        has_way_in = bool(entitlement.key_hashes) or settings.identity is not None
        result += [f"entitlement {entitlement.name}: {doubt}" for doubt in _entitlement_doubts(entitlement, has_way_in)]
    return tuple(result)


def _model_doubts(model: Model, entitlements: list[Entitlement]) -> Iterator[str]:
    reserved = _promised(entitlements, RESERVED)
    everything = _promised(entitlements, (*RESERVED, ServiceClass.ELASTIC))
    for unit in everything.units_above(model.capacity):
        total, capacity = getattr(everything, unit), getattr(model.capacity, unit)
        yield f"with the elastic entitlements {total} {unit} are promised, but its pools have {capacity}"
    for requests, pools in _alone(model):
        capacity = _capacity(pools)
        names = " and ".join(pool.name for pool in pools)
        for unit in reserved.units_above(capacity):
            some, total = getattr(capacity, unit), getattr(reserved, unit)
            yield f"in pool {names} only {some} of {total} promised {unit} can be honoured for {requests} requests"
    yield from _filled_pools(model, entitlements)
    yield from _pool_doubts(model)


def _filled_pools(model: Model, entitlements: list[Entitlement]) -> Iterator[str]:
    """Every base is kept free in every pool from the classes below: where that is all of it, those never get in."""
    for below, above in (((ServiceClass.ELASTIC,), RESERVED), (SURPLUS, (*RESERVED, ServiceClass.ELASTIC))):
        shut_out = sorted({e.service_class.value for e in entitlements if e.service_class in below})
        kept = _promised(entitlements, above)
        for pool in model.pools if shut_out else ():
            full = [
                unit for unit in ("kv_tokens", "concurrency") if getattr(kept, unit) >= getattr(pool.capacity, unit)
            ]
            if full:
                yield (
                    f"{' and '.join(shut_out)} requests will never be served by pool {pool.name}: the bases of "
                    f"{', '.join(above)} entitlements keep all of its {' and '.join(full)} free"
                )


def _pool_doubts(model: Model) -> Iterator[str]:
    shortest = model.pools[0]
    if len(model.pools) > 1 and model.routing.threshold_tokens > shortest.max_model_len:
        yield (
            f"routing.threshold_tokens {model.routing.threshold_tokens} is more than pool {shortest.name} takes; "
            f"its max_model_len {shortest.max_model_len} decides"
        )
    for pool in model.pools:
        if pool.server_capacity.kv_tokens < pool.max_model_len:
            yield (
                f"a server of pool {pool.name} holds {pool.server_capacity.kv_tokens} kv_tokens, "
                f"less than one request of its max_model_len {pool.max_model_len}"
            )


def _alone(model: Model) -> Iterator[tuple[str, tuple[Pool, ...]]]:
    """Sets of pools that some requests cannot leave: long ones by their length, others where nothing spills."""
    for position in range(1, len(model.pools)):
        yield "long", model.pools[position:]
    if len(model.pools) > 1 and not model.routing.spill:
        yield "short", model.pools[:1]


def _capacity(pools: tuple[Pool, ...]) -> Vector:
    total = Vector()
    for pool in pools:
        total += pool.capacity
    return total


def _promised(entitlements: list[Entitlement], classes: tuple[ServiceClass, ...]) -> Vector:
    total = Vector()
    for entitlement in entitlements:
        if entitlement.service_class in classes:
            total += entitlement.base
    return total


def _entitlement_doubts(entitlement: Entitlement, has_way_in: bool) -> Iterator[str]:
    if not has_way_in:
        yield "it has no keys, and there is no identity: nobody can use it"
    caps = entitlement.caps
    if caps.kv_tokens < SMALL_REQUEST_TOKENS:
        yield f"its cap of {caps.kv_tokens} kv_tokens cannot hold one request of {SMALL_REQUEST_TOKENS} tokens"
    saved = caps.tokens_per_second * entitlement.window_seconds
    if saved < SMALL_REQUEST_TOKENS:
        yield (
            f"it can save up {saved} tokens ({caps.tokens_per_second} tokens_per_second for "
            f"{entitlement.window_seconds} seconds), too few for one request of {SMALL_REQUEST_TOKENS}"
        )
