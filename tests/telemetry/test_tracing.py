from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as Request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse as Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from prometheus_client import CollectorRegistry

from extproc.telemetry import Telemetry, shut_down, tracer_provider
from extproc.telemetry.tracing import SparseLog
from tests.telemetry.facts import ADMITTED, SAMPLED, SETTLED, SPAN_ID, TRACE_ID

SECONDS = 10.0
ROOT = Path(__file__).parents[2]


class Collector(TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: list[Request] = []

    def Export(self, request: Request, context: grpc.ServicerContext) -> Response:  # noqa: ARG002, N802 - gRPC's
        self.requests.append(request)
        return Response()


@dataclass
class Listening:
    endpoint: str
    collector: Collector = field(default_factory=Collector)


@pytest.fixture
def listening() -> Iterator[Listening]:
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    result = Listening(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    add_TraceServiceServicer_to_server(result.collector, server)  # type: ignore[no-untyped-call]
    server.start()
    yield result
    server.stop(grace=None).wait()


def write_both(environ: dict[str, str]) -> bool:
    """One verdict and one settlement, exported and flushed. Returns whether the flush finished in time."""
    provider = tracer_provider(environ)
    assert provider is not None
    telemetry = Telemetry(CollectorRegistry(), provider.get_tracer("tokenpool"))
    telemetry.decided(replace(ADMITTED, traceparent=SAMPLED))
    telemetry.settled(replace(SETTLED, traceparent=SAMPLED))
    return shut_down(provider, SECONDS)


def resource(request: Request) -> dict[str, str]:
    attributes = request.resource_spans[0].resource.attributes
    return {attribute.key: attribute.value.string_value for attribute in attributes}


def test_spans_reach_a_collector_over_grpc_before_shutdown_ends(listening: Listening) -> None:
    assert write_both({"OTEL_EXPORTER_OTLP_ENDPOINT": listening.endpoint})
    (request,) = listening.collector.requests
    spans = request.resource_spans[0].scope_spans[0].spans
    assert sorted(span.name for span in spans) == ["tokenpool.settlement", "tokenpool.verdict"]
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in spans} == {(TRACE_ID, SPAN_ID)}


async def test_spans_reach_a_collector_over_http() -> None:
    bodies: list[bytes] = []

    async def receive(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(body=Response().SerializeToString(), content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", receive)
    async with TestServer(app) as server:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": str(server.make_url("/")),
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        assert await asyncio.to_thread(write_both, environ)
    (body,) = bodies
    assert len(Request.FromString(body).resource_spans[0].scope_spans[0].spans) == 2


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        pytest.param({}, "tokenpool", id="default"),
        pytest.param({"OTEL_SERVICE_NAME": "gate"}, "gate", id="named"),
        pytest.param({"OTEL_RESOURCE_ATTRIBUTES": "service.name=gate,a=b"}, "gate", id="as a resource attribute"),
        pytest.param(
            {"OTEL_SERVICE_NAME": "gate", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other"}, "gate", id="both"
        ),
    ],
)
def test_the_service_is_named_as_the_environment_says(listening: Listening, environ: dict[str, str], name: str) -> None:
    write_both({"OTEL_EXPORTER_OTLP_ENDPOINT": listening.endpoint, **environ})
    assert resource(listening.collector.requests[0])["service.name"] == name


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="no endpoint"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, id="empty endpoint"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_SDK_DISABLED": "true"}, id="disabled"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_TRACES_EXPORTER": "none"}, id="no exporter"),
    ],
)
def test_nothing_is_set_up_where_nothing_is_exported(environ: dict[str, str]) -> None:
    assert tracer_provider(environ) is None


def test_an_unknown_protocol_is_named_and_grpc_taken(listening: Listening, caplog: pytest.LogCaptureFixture) -> None:
    write_both({"OTEL_EXPORTER_OTLP_ENDPOINT": listening.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert len(listening.collector.requests) == 1
    assert "'http/json' is not supported" in caplog.text


DEAD_COLLECTOR = """
import socket, sys, time
from dataclasses import replace
from prometheus_client import CollectorRegistry
from extproc.telemetry import Telemetry, shut_down, tracer_provider
from tests.telemetry.facts import ADMITTED, SAMPLED

with socket.socket() as reserved:  # bound, never listening: connections are refused
    reserved.bind(("127.0.0.1", 0))
    endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": sys.argv[1]}
    provider = tracer_provider(environ)
    telemetry = Telemetry(CollectorRegistry(), provider.get_tracer("tokenpool"))
    begun = time.monotonic()
    for _ in range(10_000):
        telemetry.decided(replace(ADMITTED, traceparent=SAMPLED))
    written = time.monotonic()
    shut_down(provider, 0.2)
    print((written - begun) / 10_000, time.monotonic() - written)
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("limit_seconds", ["10", "0.01"], ids=["retrying", "failing fast"])
def test_a_dead_collector_delays_nothing_and_logs_little(protocol: str, limit_seconds: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEAD_COLLECTOR, protocol],
        env={**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": limit_seconds},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seconds_each, shutdown_seconds = map(float, done.stdout.split())
    assert seconds_each < 0.001
    assert shutdown_seconds < 2
    assert len(done.stderr.splitlines()) <= 4, done.stderr


def test_a_repeated_complaint_is_logged_once_a_minute() -> None:
    times = iter((0.0, 1.0, 59.0, 60.0, 61.0))
    sparse = SparseLog(clock=lambda: next(times))
    record = logging.makeLogRecord({"msg": "Failed to export"})
    assert [sparse.filter(record) for _ in range(5)] == [True, False, False, True, False]
