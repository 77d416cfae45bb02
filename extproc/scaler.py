"""KEDA's external scaler: how many servers a pool should have, over gRPC.

One server is the target of one unit of the metric, so that KEDA asks for just as many servers as the metric says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import grpc
import grpc.aio

from extproc.core.policy import Model
from extproc.ledger import LedgerUnavailable
from extproc.pb import externalscaler_pb2 as pb

SERVICE = "externalscaler.ExternalScaler"
METRIC = "tokenpool-desired-servers"  # part of a URL in Kubernetes' metrics API: names of models hold slashes
MODEL_KEY = "model"  # in the metadata of KEDA's trigger
POOL_KEY = "pool"  # may be left out where the model has one pool
POLL_SECONDS = 5.0

ActiveContext = grpc.aio.ServicerContext[pb.ScaledObjectRef, pb.IsActiveResponse]
SpecContext = grpc.aio.ServicerContext[pb.ScaledObjectRef, pb.GetMetricSpecResponse]
MetricsContext = grpc.aio.ServicerContext[pb.GetMetricsRequest, pb.GetMetricsResponse]
Context = ActiveContext | SpecContext | MetricsContext


class DesiredServers(Protocol):
    """The part of ledger.Stewardship that scaling needs."""

    async def desired(self, model: str) -> dict[str, int]: ...


@dataclass(frozen=True, slots=True)
class Target:
    model: str
    pool: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call cannot be answered."""

    code: grpc.StatusCode
    message: str


def handler(
    models: Sequence[Model],
    steward: DesiredServers,
    stopping: asyncio.Event,
    poll_seconds: float = POLL_SECONDS,
) -> grpc.GenericRpcHandler:
    """For a grpc.aio server. Streams end once `stopping` is set: else they would hold up the server's stop."""
    service = _Service({model.name: model for model in models}, steward, stopping, poll_seconds)
    ref = pb.ScaledObjectRef.FromString
    active = pb.IsActiveResponse.SerializeToString
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "IsActive": grpc.unary_unary_rpc_method_handler(service.is_active, ref, active),
            "StreamIsActive": grpc.unary_stream_rpc_method_handler(service.stream_is_active, ref, active),
            "GetMetricSpec": grpc.unary_unary_rpc_method_handler(
                service.metric_spec, ref, pb.GetMetricSpecResponse.SerializeToString
            ),
            "GetMetrics": grpc.unary_unary_rpc_method_handler(
                service.metrics, pb.GetMetricsRequest.FromString, pb.GetMetricsResponse.SerializeToString
            ),
        },
    )


class _Service:
    def __init__(
        self, models: dict[str, Model], steward: DesiredServers, stopping: asyncio.Event, poll_seconds: float
    ) -> None:
        self._models = models
        self._steward = steward
        self._stopping = stopping
        self._poll_seconds = poll_seconds

    async def is_active(self, ref: pb.ScaledObjectRef, context: ActiveContext) -> pb.IsActiveResponse:
        """Whether the pool should have any server: else KEDA scales it to none after its cooldownPeriod."""
        return pb.IsActiveResponse(result=await self._servers(ref, context) > 0)

    async def stream_is_active(
        self, ref: pb.ScaledObjectRef, context: ActiveContext
    ) -> AsyncIterator[pb.IsActiveResponse]:
        """At once, then on change. A fault later on is waited out: KEDA would reopen the stream ever more slowly."""
        told = await self._servers(ref, context) > 0
        yield pb.IsActiveResponse(result=told)
        while not await self._stops():
            servers = await self._desired(ref)
            if not isinstance(servers, Fault) and (servers > 0) != told:
                told = servers > 0
                yield pb.IsActiveResponse(result=told)

    async def metric_spec(self, ref: pb.ScaledObjectRef, context: SpecContext) -> pb.GetMetricSpecResponse:
        """KEDA makes it an AverageValue of 1: Kubernetes then wants metric / 1 servers, however many there are."""
        target = _target(self._models, ref)
        if isinstance(target, Fault):
            await _abort(context, target)
        return pb.GetMetricSpecResponse(
            metricSpecs=[pb.MetricSpec(metricName=METRIC, targetSize=1, targetSizeFloat=1.0)]
        )

    async def metrics(self, request: pb.GetMetricsRequest, context: MetricsContext) -> pb.GetMetricsResponse:
        servers = await self._servers(request.scaledObjectRef, context)
        value = pb.MetricValue(metricName=METRIC, metricValue=servers, metricValueFloat=float(servers))
        return pb.GetMetricsResponse(metricValues=[value])

    async def _servers(self, ref: pb.ScaledObjectRef, context: Context) -> int:
        servers = await self._desired(ref)
        if isinstance(servers, Fault):
            await _abort(context, servers)
        return servers

    async def _desired(self, ref: pb.ScaledObjectRef) -> int | Fault:
        target = _target(self._models, ref)
        if isinstance(target, Fault):
            return target
        try:
            servers = await self._steward.desired(target.model)
        except LedgerUnavailable:
            return Fault(grpc.StatusCode.UNAVAILABLE, "Redis did not answer: the servers needed are not known")
        if target.pool not in servers:  # not zero: that would end servers which nobody has looked at yet
            return Fault(
                grpc.StatusCode.UNAVAILABLE,
                f"no controller has looked at pool {target.pool} of {target.model} yet: try again in a few seconds",
            )
        return servers[target.pool]

    async def _stops(self) -> bool:
        """After a while: whether the server stops; at once where it does."""
        try:
            await asyncio.wait_for(self._stopping.wait(), self._poll_seconds)
        except TimeoutError:
            return False
        return True


def _target(models: dict[str, Model], ref: pb.ScaledObjectRef) -> Target | Fault:
    metadata = ref.scalerMetadata
    name, pool = metadata.get(MODEL_KEY, ""), metadata.get(POOL_KEY, "")
    if name not in models:
        return _unknown(MODEL_KEY, name, "the models are", models)
    pools = [pool.name for pool in models[name].pools]
    if not pool and len(pools) == 1:
        return Target(name, pools[0])
    if pool not in pools:
        return _unknown(POOL_KEY, pool, f"the pools of {name} are", pools)
    return Target(name, pool)


def _unknown(key: str, value: str, those: str, names: Sequence[str] | dict[str, Model]) -> Fault:
    problem = f"no {key} is named {value!r}" if value else f"the trigger's metadata must name a {key}"
    return Fault(grpc.StatusCode.INVALID_ARGUMENT, f"{problem}; {those} {', '.join(sorted(names))}")


async def _abort(context: Context, fault: Fault) -> NoReturn:
    await context.abort(fault.code, fault.message)
    raise AssertionError("abort raises")
