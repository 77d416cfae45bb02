"""The neighbours of Envoy, in the test process: a sidecar and a model server that do what the request's body says."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.core.metadata import NAMESPACE, POOL, ROUTE, STREAM_HEADER, TICKET, VERDICT, cluster_name
from extproc.envoy_config.clusters import READINESS
from extproc.pb import als_pb2, ext_proc_pb2

MODEL = "m"
OVERWRITE = ext_proc_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
PATIENCE_SECONDS = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Seen:
    """What reached the sidecars: messages, and access-log entries by ticket, without one by the id of the stream."""

    messages: list[ext_proc_pb2.ProcessingRequest] = field(default_factory=list)
    peers: list[int] = field(default_factory=list)  # which sidecar got the message of the same place
    entries: dict[str, als_pb2.HTTPAccessLogEntry] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)  # the verdicts of all entries; "" where there was none
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    def log(self, entry: als_pb2.HTTPAccessLogEntry) -> None:
        verdict = entry.common_properties.metadata.filter_metadata[NAMESPACE]
        self.logged.append(verdict.fields[VERDICT].string_value)
        stream = entry.request.request_headers[STREAM_HEADER]
        self.entries[verdict.fields[TICKET].string_value or stream] = entry

    async def entry(self, ticket: str) -> als_pb2.HTTPAccessLogEntry:
        async with asyncio.timeout(PATIENCE_SECONDS), self.arrived:
            await self.arrived.wait_for(lambda: ticket in self.entries)
            return self.entries[ticket]


class Sidecar:
    """Admits to the short pool what does not say otherwise.

    Fields of the request body that it obeys: `verdict` (metadata to set), `refuse` (the status of a refusal),
    `splice` (bytes to put into the body), `silent` (no answer).
    """

    def __init__(self, seen: Seen, number: int = 0) -> None:
        self.seen = seen
        self.number = number
        self.port = 0
        self.health = health.aio.HealthServicer()
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])

    async def start(self, address: str = "127.0.0.1:0") -> Self:
        self.server.add_generic_rpc_handlers((self._verdicts(), self._logs()))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        await self.health.set(READINESS, health_pb2.HealthCheckResponse.SERVING)
        self.port = self.server.add_insecure_port(address)
        await self.server.start()
        return self

    async def stop(self) -> None:
        await self.server.stop(None)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _verdicts(self) -> grpc.GenericRpcHandler:
        process = grpc.stream_stream_rpc_method_handler(
            self._process,
            ext_proc_pb2.ProcessingRequest.FromString,
            ext_proc_pb2.ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("envoy.service.ext_proc.v3.ExternalProcessor", {"Process": process})

    def _logs(self) -> grpc.GenericRpcHandler:
        stream = grpc.stream_unary_rpc_method_handler(
            self._settle,
            als_pb2.StreamAccessLogsMessage.FromString,
            als_pb2.StreamAccessLogsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(
            "envoy.service.accesslog.v3.AccessLogService", {"StreamAccessLogs": stream}
        )

    async def _process(
        self, requests: AsyncIterator[ext_proc_pb2.ProcessingRequest], _: object
    ) -> AsyncIterator[ext_proc_pb2.ProcessingResponse]:
        async for message in requests:
            self.seen.messages.append(message)
            self.seen.peers.append(self.number)
            if message.WhichOneof("request") == "request_headers":
                yield refusal(200, b'{"object": "list", "data": []}', {})
                return
            raw = message.request_body.body
            asked = parsed(raw)
            if asked.get("silent"):
                await asyncio.sleep(PATIENCE_SECONDS)
            if "refuse" in asked:
                yield refusal(asked["refuse"], b'{"error": {"message": "no"}}', asked.get("verdict", {}))
            else:
                yield admission(asked, raw)
            return

    async def _settle(
        self, batches: AsyncIterator[als_pb2.StreamAccessLogsMessage], _: object
    ) -> als_pb2.StreamAccessLogsResponse:
        async for batch in batches:
            async with self.seen.arrived:
                for entry in batch.http_logs.log_entry:
                    self.seen.log(entry)
                self.seen.arrived.notify_all()
        return als_pb2.StreamAccessLogsResponse()


def parsed(raw: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(raw)
    except ValueError:
        return {}
    return asked if isinstance(asked, dict) else {}


def admission(asked: Mapping[str, Any], raw: bytes) -> ext_proc_pb2.ProcessingResponse:
    reply = ext_proc_pb2.ProcessingResponse()
    verdict = {VERDICT: "admit", ROUTE: cluster_name(MODEL, "short"), POOL: "short", TICKET: "-"}
    reply.dynamic_metadata.update({NAMESPACE: verdict | asked.get("verdict", {})})
    common = reply.request_body.response
    common.clear_route_cache = True
    marker = common.header_mutation.set_headers.add(append_action=OVERWRITE)
    marker.header.key, marker.header.raw_value = "x-tokenpool-verdict", b"1"
    if "splice" in asked:
        common.body_mutation.body = raw + b" " * asked["splice"]
    return reply


def refusal(status: int, body: bytes, verdict: Mapping[str, Any]) -> ext_proc_pb2.ProcessingResponse:
    reply = ext_proc_pb2.ProcessingResponse()
    reply.dynamic_metadata.update({NAMESPACE: {VERDICT: "refuse", **verdict}})
    answer = reply.immediate_response
    answer.status.code = status
    answer.details = "tokenpool"
    answer.body = body
    headers = {
        "content-type": "application/json",
        "retry-after": "7",
        "x-tokenpool-reason": "concurrency",
        "x-ratelimit-remaining-requests": "0",
    }
    for key, value in headers.items():
        header = answer.headers.set_headers.add(append_action=OVERWRITE)
        header.header.key, header.header.raw_value = key, value.encode()
    return reply


class ModelServer:
    """Says 400 to more prompt tokens (field `prompt`) than its limit; else answers as the request's body says.

    Fields that it obeys: `status`, `content_type`, `chunks` (of text), `large` (bytes of white space), `hang_up`,
    `wait`, `pause` (until `go_on`, after the text `first`).
    """

    def __init__(self, limit: int = 1_000_000) -> None:
        self.limit = limit
        self.port = 0
        self.healthy = True
        self.go_on = asyncio.Event()
        self.abandoned = 0  # requests whose client left before the end
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # path, headers, body
        application = web.Application(client_max_size=64 << 20)
        application.router.add_get("/health", self._health)
        application.router.add_post("/{path:.*}", self._answer)
        self.runner = web.AppRunner(application, handler_cancellation=True)

    async def start(self) -> Self:
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = int(self.runner.addresses[0][1])
        return self

    async def stop(self) -> None:
        await self.runner.cleanup()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._obey(request)
        except (asyncio.CancelledError, ConnectionError):
            self.abandoned += 1
            raise

    async def _obey(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.requests.append((request.path, {k.lower(): v for k, v in request.headers.items()}, raw))
        asked = parsed(raw)
        if asked.get("prompt", 0) > self.limit:
            return web.json_response({"error": {"message": "maximum context length"}}, status=400)
        if asked.get("hang_up"):
            assert request.transport is not None
            request.transport.close()
            await asyncio.sleep(PATIENCE_SECONDS)  # cancelled by the loss of the connection
        if asked.get("wait"):
            await asyncio.sleep(PATIENCE_SECONDS)
        reply = web.StreamResponse(status=asked.get("status", 200))
        reply.headers["content-type"] = asked.get("content_type", "application/json")
        await reply.prepare(request)
        if asked.get("pause"):
            await reply.write(asked.get("first", "first, ").encode())
            await self.go_on.wait()
            await reply.write(b"last")
            return reply
        if "large" in asked:
            await reply.write(b" " * asked["large"])
        for chunk in asked.get("chunks", ["{}"]):
            await reply.write(chunk.encode())
            await asyncio.sleep(0)
        await reply.write_eof()
        return reply
