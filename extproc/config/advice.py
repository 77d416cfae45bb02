"""What a configuration may say but its author probably did not mean."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from extproc.config.promises import Promised
from extproc.core.policy import UNITS, Entitlement, Model, Pool, ServiceClass, Vector
from extproc.core.routing import threshold_tokens
from extproc.core.settings import Settings

_LENT_BUT = "dedicated bases and the head-room of guaranteed ones"
SMALL_REQUEST_TOKENS = 1024  # an ordinary chat turn; who cannot hold one is refused most of what he asks


def warnings(settings: Settings) -> tuple[str, ...]:
    """One sentence for each thing that is legal but doubtful."""
    entitlements = settings.policy.entitlements
    result = [] if entitlements else ["there are no entitlements: every request will be refused"]
    for model in settings.policy.models:
        own = list(settings.policy.entitlements_of(model.name))
        result += [f"model {model.name}: {doubt}" for doubt in _model_doubts(model, own)]
    for entitlement in entitlements:
        has_way_in = bool(entitlement.key_hashes) or settings.identity is not None
        result += [f"entitlement {entitlement.name}: {doubt}" for doubt in _entitlement_doubts(entitlement, has_way_in)]
    return tuple(result)


def _model_doubts(model: Model, entitlements: list[Entitlement]) -> Iterator[str]:
    everything = sum((entitlement.base for entitlement in entitlements), start=Vector())
    for unit in everything.units_above(model.capacity):
        total, capacity = getattr(everything, unit), getattr(model.capacity, unit)
        yield f"with the elastic entitlements {total} {unit} are promised, but its pools have {capacity}"
    for requests, pools in _alone(model):
        names = " and ".join(pool.name for pool in pools)
        for unit in UNITS:
            promised = Promised.sum_of(unit, ((one.service_class, getattr(one.base, unit)) for one in entitlements))
            some = promised.honoured_by(pools)
            if some < promised.total:
                yield (
                    f"in pool {names} only {some} of {promised.total} promised {unit} can be honoured "
                    f"for {requests} requests"
                )
    yield from _filled_pools(model, entitlements)
    yield from _pool_doubts(model)


def _filled_pools(model: Model, entitlements: list[Entitlement]) -> Iterator[str]:
    """Who is kept out of a pool for good, since what must stay free there for others is all of it."""
    bases = {one: sum((e.base for e in entitlements if e.service_class is one), start=Vector()) for one in ServiceClass}
    dedicated, guaranteed = bases[ServiceClass.DEDICATED], bases[ServiceClass.GUARANTEED]
    present = {entitlement.service_class for entitlement in entitlements}
    lent = {ServiceClass.SPOT, ServiceClass.PREEMPTIBLE} if model.sharing.lend_to_spot else {ServiceClass.PREEMPTIBLE}
    for pool in model.pools:
        head_room = _least(guaranteed, _head_room(model, pool))
        kept_from: tuple[tuple[set[ServiceClass], str, Vector], ...] = (
            ({ServiceClass.GUARANTEED}, "dedicated bases", Vector(0, dedicated.kv_tokens, dedicated.concurrency)),
            (
                {ServiceClass.ELASTIC, ServiceClass.SPOT} - lent,
                "dedicated and guaranteed bases",
                dedicated + Vector(0, guaranteed.kv_tokens, guaranteed.concurrency),
            ),
            (lent, _LENT_BUT if head_room != Vector() else "dedicated bases", dedicated + head_room),
        )
        for classes, what, kept in kept_from:
            full = [unit for unit in UNITS if getattr(kept, unit) >= getattr(pool.capacity, unit)]
            shut_out = [one.value for one in ServiceClass if one in classes & present]
            if full and shut_out:
                yield (
                    f"{' and '.join(shut_out)} requests will never be served by pool {pool.name}: {what} "
                    f"keep all of its {' and '.join(full)} free"
                )


def _head_room(model: Model, pool: Pool) -> Vector:
    """What of a pool is never lent, where that much is idle and guaranteed."""
    requests, server = model.sharing.headroom_requests, pool.server_capacity
    return Vector(0, requests * server.kv_tokens // server.concurrency, requests)


def _least(one: Vector, other: Vector) -> Vector:
    return Vector(*(min(getattr(one, unit), getattr(other, unit)) for unit in UNITS))


def _pool_doubts(model: Model) -> Iterator[str]:
    shortest = model.pools[0]
    if len(model.pools) > 1 and model.routing.threshold_tokens > shortest.max_model_len:
        yield (
            f"routing.threshold_tokens {model.routing.threshold_tokens} is more than pool {shortest.name} takes; "
            f"its max_model_len {shortest.max_model_len} decides"
        )
    thresholds = [threshold_tokens(model, index) for index in range(len(model.pools))]
    for (below, above), pool in zip(pairwise(thresholds), model.pools[1:], strict=True):
        if above <= below:
            yield f"no request will prefer pool {pool.name}: shorter pools take up to {below} tokens, it takes {above}"
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
