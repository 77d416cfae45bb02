"""What KEDA is told over gRPC, by a real server, in KEDA's own messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from extproc import scaler
from extproc.core.policy import Model, Policy, Pool, Vector
from extproc.core.seen import PoolShares, Shares, Standing
from extproc.ledger import LedgerUnavailable
from extproc.pb import externalscaler_pb2 as pb
from extproc.redis_ledger import RedisControl, connect
from extproc.scaler import DesiredServers
from tests.edge.sidecars import Watching

Answer = TypeVar("Answer", bound=Message)

SERVER = Vector(1000, 100_000, 10)
MODELS = (
    Model("meta/llama", (Pool("short", ("sim://",), 8192, SERVER), Pool("long", ("sim://",), 65_536, SERVER))),
    Model("single", (Pool("default", ("sim://",), 8192, SERVER),)),
)
SHORT = {"model": "meta/llama", "pool": "short", "scalerAddress": "tokenpool:50051"}
POLL_SECONDS = 0.01


@dataclass
class Steward:
    """What the controller last set."""

    servers: dict[str, dict[str, int]] = field(default_factory=dict)
    reachable: bool = True
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def desired(self, model: str) -> dict[str, int]:
        self.asked.set()
        if not self.reachable:
            raise LedgerUnavailable("redis://:hunter2@127.0.0.1:6379")
        return self.servers.get(model, {})


@dataclass(frozen=True, slots=True)
class Keda:
    """A client that calls as KEDA does."""

    channel: grpc.aio.Channel

    async def is_active(self, **metadata: str) -> bool:
        return (await self._call("IsActive", _ref(metadata), pb.IsActiveResponse)).result

    async def spec(self, **metadata: str) -> pb.MetricSpec:
        [spec] = (await self._call("GetMetricSpec", _ref(metadata), pb.GetMetricSpecResponse)).metricSpecs
        return spec

    async def metric(self, **metadata: str) -> pb.MetricValue:
        request = pb.GetMetricsRequest(scaledObjectRef=_ref(metadata), metricName=scaler.METRIC)
        [value] = (await self._call("GetMetrics", request, pb.GetMetricsResponse)).metricValues
        return value

    def stream(self, **metadata: str) -> Any:
        return self.channel.unary_stream(
            f"/{scaler.SERVICE}/StreamIsActive",
            request_serializer=pb.ScaledObjectRef.SerializeToString,
            response_deserializer=pb.IsActiveResponse.FromString,
        )(_ref(metadata))

    async def _call(self, method: str, request: Any, answer: type[Answer]) -> Answer:
        call: Any = self.channel.unary_unary(
            f"/{scaler.SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        answered: Answer = await call(request)
        return answered


def _ref(metadata: dict[str, str]) -> pb.ScaledObjectRef:
    return pb.ScaledObjectRef(name="vllm-short", namespace="inference", scalerMetadata=metadata)


@dataclass(frozen=True, slots=True)
class Running:
    keda: Keda
    stopping: asyncio.Event


@asynccontextmanager
async def serving(steward: DesiredServers) -> AsyncIterator[Running]:
    server, stopping = grpc.aio.server(), asyncio.Event()
    server.add_generic_rpc_handlers((scaler.handler(MODELS, steward, stopping, POLL_SECONDS),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Running(Keda(channel), stopping)
    finally:
        stopping.set()
        await server.stop(1)


@pytest.fixture
def steward() -> Steward:
    return Steward({"meta/llama": {"short": 3, "long": 0}, "single": {"default": 2}})


@pytest.fixture
async def running(steward: Steward) -> AsyncIterator[Running]:
    async with serving(steward) as found:
        yield found


async def test_the_metric_is_the_number_of_servers_and_its_target_is_one(running: Running) -> None:
    spec = await running.keda.spec(**SHORT)
    value = await running.keda.metric(**SHORT)
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (scaler.METRIC, 1, 1.0)
    assert (value.metricName, value.metricValue, value.metricValueFloat) == (scaler.METRIC, 3, 3.0)


async def test_the_metrics_name_can_stand_in_the_path_of_kubernetes_metrics_api(running: Running) -> None:
    name = (await running.keda.spec(**SHORT)).metricName
    assert name.replace("-", "").isalnum()
    assert name == name.lower()


@pytest.mark.parametrize(("pool", "expected"), [("short", True), ("long", False)])
async def test_a_pool_is_active_while_it_should_have_a_server(running: Running, pool: str, expected: bool) -> None:
    assert await running.keda.is_active(model="meta/llama", pool=pool) is expected


async def test_the_pool_may_be_left_out_where_there_is_one(running: Running) -> None:
    assert (await running.keda.metric(model="single")).metricValue == 2


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "the trigger's metadata must name a model; the models are meta/llama, single"),
        ({"model": "mistral"}, "no model is named 'mistral'; the models are meta/llama, single"),
        ({"model": "meta/llama"}, "the trigger's metadata must name a pool; the pools of meta/llama are long, short"),
        (
            {"model": "meta/llama", "pool": "default"},
            "no pool is named 'default'; the pools of meta/llama are long, short",
        ),
        ({"model": "single", "pool": "short"}, "no pool is named 'short'; the pools of single are default"),
    ],
    ids=["no model", "unknown model", "no pool", "unknown pool", "another model's pool"],
)
async def test_an_unknown_target_is_an_invalid_argument_that_names_the_known(
    running: Running, metadata: dict[str, str], message: str
) -> None:
    assert await _faults(running.keda, metadata) == [(grpc.StatusCode.INVALID_ARGUMENT, message)] * 4


async def test_without_redis_nothing_is_known(running: Running, steward: Steward) -> None:
    steward.reachable = False
    faults = await _faults(running.keda, SHORT, but=("spec",))
    assert faults == [(grpc.StatusCode.UNAVAILABLE, "Redis did not answer: the servers needed are not known")] * 3


async def test_before_the_first_tick_no_server_is_ended(running: Running, steward: Steward) -> None:
    steward.servers.clear()
    faults = await _faults(running.keda, SHORT, but=("spec",))
    message = "no controller has looked at pool short of meta/llama yet: try again in a few seconds"
    assert faults == [(grpc.StatusCode.UNAVAILABLE, message)] * 3


async def _faults(keda: Keda, metadata: dict[str, str], but: tuple[str, ...] = ()) -> list[tuple[grpc.StatusCode, str]]:
    calls: dict[str, Callable[..., Any]] = {
        "is_active": keda.is_active,
        "spec": keda.spec,
        "metric": keda.metric,
        "stream": lambda **each: keda.stream(**each).read(),
    }
    found = []
    for name, call in calls.items():
        if name not in but:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(**metadata)
            found.append((caught.value.code(), caught.value.details() or ""))
    return found


async def test_a_stream_tells_at_once_and_then_each_change(running: Running, steward: Steward) -> None:
    stream = running.keda.stream(**SHORT)
    assert (await stream.read()).result is True
    for servers, expected in ((0, False), (1, True)):
        steward.servers["meta/llama"]["short"] = servers
        assert (await stream.read()).result is expected


async def test_a_stream_tells_a_state_once(running: Running, steward: Steward) -> None:
    stream = running.keda.stream(**SHORT)
    assert (await stream.read()).result is True
    for servers in (2, 1, 0):
        steward.servers["meta/llama"]["short"] = servers
        await _polled(steward)
    assert (await stream.read()).result is False


async def test_a_stream_waits_out_redis(running: Running, steward: Steward) -> None:
    stream = running.keda.stream(**SHORT)
    assert (await stream.read()).result is True
    steward.reachable = False
    await _polled(steward)
    steward.servers["meta/llama"]["short"] = 0
    steward.reachable = True
    assert (await stream.read()).result is False


async def _polled(steward: Steward) -> None:
    """Until a stream has looked again, from its beginning."""
    for _ in range(2):
        steward.asked.clear()
        await steward.asked.wait()


async def test_a_stream_ends_when_the_server_stops(running: Running) -> None:
    stream = running.keda.stream(**SHORT)
    assert (await stream.read()).result is True
    running.stopping.set()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_asks_no_more_once_its_client_is_gone(running: Running, steward: Steward) -> None:
    stream = running.keda.stream(**SHORT)
    await stream.read()
    stream.cancel()
    for _ in range(100):
        if not await _asked_soon(steward):
            return
    pytest.fail("it still asks")


async def _asked_soon(steward: Steward) -> bool:
    steward.asked.clear()
    try:
        await asyncio.wait_for(steward.asked.wait(), 20 * POLL_SECONDS)
    except TimeoutError:
        return False
    return True


async def test_what_a_controller_sets_in_redis_is_what_keda_is_told(empty_url: str) -> None:
    client = connect(empty_url)
    control = RedisControl(client, Policy(MODELS, ()), Watching())
    async with serving(control) as found:
        [fault] = await _faults(found.keda, {"model": "single"}, but=("is_active", "spec", "stream"))
        assert fault[0] is grpc.StatusCode.UNAVAILABLE
        term = await control.lead("single", "this", 60_000)
        await control.seen("single", (1,))
        assert await control.set_shares("single", term, _shares(desired=4))
        assert (await found.keda.metric(model="single")).metricValue == 4
    await client.aclose()


def _shares(desired: int) -> Shares:
    """Of a model without entitlements and with one pool."""
    none, units = np.zeros(0), np.zeros(3)
    standing = Standing(1000, none, none, none, none, none, wanted=(((1000, desired),),))
    rows = np.zeros((0, 3))
    return Shares(none, rows, rows, (PoolShares(1, units, units, desired),), standing)


# KEDA's pkg/scalers/externalscaler/externalscaler.proto, but for StreamMetricSpec, which is optional.
KEDAS = {
    "ScaledObjectRef": {"name": (1, "STRING"), "namespace": (2, "STRING"), "scalerMetadata": (3, "MESSAGE")},
    "IsActiveResponse": {"result": (1, "BOOL")},
    "GetMetricSpecResponse": {"metricSpecs": (1, "MESSAGE")},
    "MetricSpec": {"metricName": (1, "STRING"), "targetSize": (2, "INT64"), "targetSizeFloat": (3, "DOUBLE")},
    "GetMetricsRequest": {"scaledObjectRef": (1, "MESSAGE"), "metricName": (2, "STRING")},
    "GetMetricsResponse": {"metricValues": (1, "MESSAGE")},
    "MetricValue": {"metricName": (1, "STRING"), "metricValue": (2, "INT64"), "metricValueFloat": (3, "DOUBLE")},
}


def test_every_field_has_kedas_number_and_type() -> None:
    ours = {
        message.name: {each.name: (each.number, each.type) for each in message.fields}
        for message in pb.DESCRIPTOR.message_types_by_name.values()
    }
    kedas = {
        message: {name: (number, getattr(FieldDescriptor, f"TYPE_{kind}")) for name, (number, kind) in fields.items()}
        for message, fields in KEDAS.items()
    }
    assert ours == kedas


def test_the_service_has_kedas_methods() -> None:
    service = pb.DESCRIPTOR.services_by_name["ExternalScaler"]
    assert service.full_name == scaler.SERVICE
    assert {each.name for each in service.methods} == {"IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics"}
