"""Parts of the file to the frozen values that the rest of the program works with."""

from __future__ import annotations

from collections.abc import Mapping

from extproc.config.keys import Key
from extproc.config.schema import EntitlementPart, FilePart, IdentityPart, ModelPart, PoolPart, SharingPart
from extproc.core.policy import (
    UNITS,
    Cost,
    Entitlement,
    MarketTerms,
    MediaTokens,
    Model,
    Policy,
    Pool,
    Routing,
    Scaling,
    Sharing,
    Vector,
)
from extproc.core.settings import Identity, Settings, Tracing


def settings(file: FilePart, keys: Mapping[int, tuple[Key, ...]]) -> Settings:
    entitlements = tuple(entitlement(part, keys[index]) for index, part in enumerate(file.entitlements))
    tracing = file.tracing
    return Settings(
        policy=Policy(tuple(model(part) for part in file.models), entitlements),
        redis=file.redis,
        identity=None if file.identity is None else _identity(file.identity),
        fail=file.fail,
        tracing=None if tracing is None else Tracing(tracing.otlp_grpc, tracing.sample_percent),
        max_body_bytes=file.max_body_bytes,
        request_timeout_seconds=file.request_timeout_seconds,
        lease_seconds=file.lease_seconds,
        redis_timeout_ms=file.redis_timeout_ms,
        tick_ms=file.tick_ms,
    )


def _identity(part: IdentityPart) -> Identity:
    if part.metadata is None:
        return Identity(header=part.header)
    return Identity(metadata_namespace=part.metadata.namespace, metadata_key=part.metadata.key)


def model(part: ModelPart) -> Model:
    pools = sorted((_pool(name, pool) for name, pool in part.pools.items()), key=lambda pool: pool.max_model_len)
    return Model(
        name=part.name,
        pools=tuple(pools),
        aliases=tuple(part.aliases),
        routing=Routing(
            threshold_tokens=min(part.routing.threshold_tokens, pools[-1].max_model_len),
            sigmas=part.routing.sigmas,
            spill=part.routing.spill,
        ),
        stream_usage=part.stream_usage,
        reserve=part.reserve,
        cost=Cost(part.cost.prompt, part.cost.cached_prompt, part.cost.completion),
        media=MediaTokens(image=part.media.image_tokens, audio=part.media.audio_tokens),
        sharing=_sharing(part.sharing),
        scaling=Scaling(part.scaling.target_utilisation, part.scaling.scale_down_seconds),
    )


def _sharing(part: SharingPart) -> Sharing:
    return Sharing(
        lend_to_spot=part.lend_to_spot,
        headroom_requests=part.headroom_requests,
        elastic_weight=part.weights.elastic,
        spot_weight=part.weights.spot,
        preemptible_weight=part.weights.preemptible,
        slo_reference_ms=part.slo_reference_ms,
        slo_exponent=part.slo_exponent,
        overuse_discount=part.overuse_discount,
        debt_seconds=part.debt_seconds,
        debt_gain=part.debt_gain,
    )


def _pool(name: str, part: PoolPart) -> Pool:
    capacity = Vector(part.capacity.tokens_per_second, part.capacity.kv_tokens, part.capacity.concurrency)
    return Pool(name, tuple(part.endpoints), part.max_model_len, capacity, part.threshold_tokens)


def entitlement(part: EntitlementPart, keys: tuple[Key, ...]) -> Entitlement:
    promised = Vector(part.tokens_per_second, part.kv_tokens, part.concurrency)
    market = part.market
    return Entitlement(
        name=part.name,
        model=part.model,
        service_class=part.service_class,
        base=Vector() if part.service_class.surplus else promised,
        caps=Vector(*(getattr(part.burst, unit) or getattr(part, unit) for unit in UNITS)),
        window_seconds=part.burst.seconds,
        key_hashes=tuple(key.hash for key in keys),
        slo_ttft_ms=None if part.slo is None else part.slo.ttft_ms,
        max_wait_ms=part.max_wait_ms,
        max_waiting=part.max_waiting,
        prioritise=part.prioritise,
        market=None if market is None else MarketTerms(market.price_elasticity, market.budget, market.period_seconds),
    )
