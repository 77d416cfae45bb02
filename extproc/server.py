"""The gRPC edge of one worker: a stream is one verdict, the access log is settlement, health is health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from extproc import wire
from extproc.core.refusal import ErrorShape
from extproc.core.settings import MIB, Settings
from extproc.core.wording import not_text
from extproc.pb import als_pb2, ext_proc_pb2
from extproc.settlements import Settlements
from extproc.verdicts import Admission, Call, Denial, Moved, Verdict, Verdicts

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
ACCESS_LOG = "envoy.service.accesslog.v3.AccessLogService"
SERVICES = ("", "readiness", EXT_PROC, ACCESS_LOG)  # all say the same; "liveness" is its own
QUIET_SECONDS = 0.5  # many times the interval at which Envoy sends its entries: a busy machine is late
LINGER_SECONDS = 0.1  # for Envoy to read how its streams ended: where their connection breaks first, requests fail
MESSAGE_MARGIN = MIB  # attributes and framing beside the body

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[ext_proc_pb2.ProcessingRequest, ext_proc_pb2.ProcessingResponse]


class Edge:
    """One worker's server. Streams hold nothing: what outlives them is given to tasks of the server."""

    def __init__(
        self,
        settings: Settings,
        verdicts: Verdicts,
        settlements: Settlements,
        also: Callable[[asyncio.Event], grpc.GenericRpcHandler] | None = None,
    ) -> None:
        """`also` makes a further service for the same address; the event is set when the server stops."""
        self._settings = settings
        self._verdicts = verdicts
        self._settlements = settlements
        self._stopping = asyncio.Event()
        self._lent: set[asyncio.Task[Denial]] = set()  # claims that running requests on borrowed room are waiting for
        self._health = health.HealthServicer()
        size = settings.max_body_bytes + MESSAGE_MARGIN
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", size),
                ("grpc.so_reuseport", 0),  # two workers on one address would be an accident: let it fail
                ("grpc.http2.max_ping_strikes", 0),
            ]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_generic_rpc_handlers((self._verdict_handler(), self._access_log_handler()))
        if also is not None:
            self._server.add_generic_rpc_handlers((also(self._stopping),))

    async def start(self, address: str) -> None:
        """`host:port` or `unix:/path`. Raises RuntimeError where the address is taken."""
        self._server.add_insecure_port(address)
        await self._server.start()
        await self._health.set("liveness", health_pb2.HealthCheckResponse.SERVING)

    async def set_ready(self, *, ready: bool) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in SERVICES:
            await self._health.set(service, serving if ready else health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """No new streams; those begun get the grace; then settlements finish.

        What waits for room goes to another worker, or is refused; what runs on borrowed room runs on, unclaimed.
        """
        await self.set_ready(ready=False)
        self._stopping.set()
        self._verdicts.stop()
        for claim in self._lent:
            claim.cancel()
        await asyncio.sleep(LINGER_SECONDS)
        await self._server.stop(grace_seconds)
        left = await self._settlements.drain(grace_seconds)
        if left:
            log.warning("%d settlements were not finished; their leases expire at their deadlines", left)

    def _verdict_handler(self) -> grpc.GenericRpcHandler:
        handler = grpc.stream_stream_rpc_method_handler(
            self._process,
            _parsed,
            ext_proc_pb2.ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(EXT_PROC, {"Process": handler})

    def _access_log_handler(self) -> grpc.GenericRpcHandler:
        handler = grpc.stream_unary_rpc_method_handler(
            self._settle, als_pb2.StreamAccessLogsMessage.FromString, als_pb2.StreamAccessLogsResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(ACCESS_LOG, {"StreamAccessLogs": handler})

    async def _process(self, _requests: object, context: Context) -> None:
        """One message in the form of `tokenpool envoy`; headers first, then the body, in the classic form.

        Returning right after the verdict closes the stream: nothing that happens to this process can then touch
        the response. Only a request on borrowed room keeps its stream: a message on it is how Envoy ends a request.
        """
        traceparent = _traceparent(context)
        message = await _read(context)
        if message is None:
            return
        if message.WhichOneof("request") == "request_body":
            call = wire.call_of_body(message, self._settings.identity, traceparent)
            await self._answer(context, await self._verdicts.decide(call), classic=False)
            return
        await self._process_classic(
            context, wire.call_of_headers(message, self._settings.identity, traceparent), message
        )

    async def _process_classic(self, context: Context, call: Call, headers: ext_proc_pb2.ProcessingRequest) -> None:
        if headers.request_headers.end_of_stream or call.method in ("GET", "HEAD"):
            await self._answer(context, await self._verdicts.decide(call), classic=True, headers_phase=True)
            return
        await context.write(wire.proceed_to_body())
        message = await _read(context)
        if message is not None:
            verdict = await self._verdicts.decide(wire.with_body(call, message))
            await self._answer(context, verdict, classic=True)

    async def _answer(self, context: Context, verdict: Verdict, *, classic: bool, headers_phase: bool = False) -> None:
        if isinstance(verdict, Moved):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this worker stops")  # Envoy asks another
        if not isinstance(verdict, Admission):
            await context.write(wire.response_of(verdict))
            return
        try:
            await context.write(wire.response_of(verdict, classic=classic, headers_phase=headers_phase))
        except BaseException:
            self._settlements.release(verdict.ticket)
            raise
        if verdict.borrowed and not self._stopping.is_set():
            await self._until_over(context, verdict)

    async def _until_over(self, context: Context, admission: Admission) -> None:
        """Ends the request where its room is claimed before it is over; where this server stops, it goes on."""
        over = asyncio.ensure_future(context.read())  # Envoy sends nothing more: it ends the stream
        claim = asyncio.create_task(self._verdicts.claimed(admission))
        self._lent.add(claim)
        try:
            await asyncio.wait((over, claim), return_when=asyncio.FIRST_COMPLETED)
            if claim.done() and not claim.cancelled() and not over.done():
                await context.write(wire.ending_of(claim.result()))
        finally:
            self._lent.discard(claim)
            claim.cancel()
            over.cancel()

    async def _settle(
        self,
        _requests: object,
        context: grpc.aio.ServicerContext[als_pb2.StreamAccessLogsMessage, als_pb2.StreamAccessLogsResponse],
    ) -> als_pb2.StreamAccessLogsResponse:
        """Envoy keeps this stream open for good; a worker that stops ends it once it has gone quiet."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while True:
                read = asyncio.ensure_future(context.read())
                await asyncio.wait((read, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    await asyncio.wait((read,), timeout=QUIET_SECONDS)
                if not read.done():
                    read.cancel()
                    return als_pb2.StreamAccessLogsResponse()
                batch = read.result()
                if not isinstance(batch, als_pb2.StreamAccessLogsMessage):
                    return als_pb2.StreamAccessLogsResponse()
                self._settlements.accept(wire.entries(batch))
        finally:
            stopping.cancel()


def _parsed(data: bytes) -> ext_proc_pb2.ProcessingRequest | DecodeError:
    try:
        return ext_proc_pb2.ProcessingRequest.FromString(data)
    except DecodeError as fault:  # raised here, it would end the stream, and with `fail: open` let the request pass
        return fault


async def _read(context: Context) -> ext_proc_pb2.ProcessingRequest | None:
    """None at the end of the stream, or where its message was refused for what it is made of."""
    message = await context.read()
    if isinstance(message, DecodeError):
        await context.write(wire.response_of(Denial(not_text(), ErrorShape.OPENAI)))
        return None
    return message if isinstance(message, ext_proc_pb2.ProcessingRequest) else None


def _traceparent(context: Context) -> str:
    """Envoy's own, from the gRPC metadata: the one among the request's headers is the client's."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent":
            return value if isinstance(value, str) else value.decode("latin-1")
    return ""
