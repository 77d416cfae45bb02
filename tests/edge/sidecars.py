"""A sidecar's parts on a real server, and a gRPC client that speaks to it as Envoy does."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.beliefs import LearnedBeliefs
from extproc.core.observed import Decided, Settled
from extproc.core.policy import Entitlement, Model, Policy, Pool, ServiceClass, Vector
from extproc.core.settings import Settings
from extproc.ledger import ModelState
from extproc.pb import als_pb2
from extproc.redis_ledger import RedisLedger, connect
from extproc.server import ACCESS_LOG, EXT_PROC, Edge
from extproc.settlements import Settlements
from extproc.verdicts import Verdicts
from extproc.wire import Request, Response
from tests.edge.envoys import log_batch

MAX_BODY_BYTES = 65_536
WIDE = Vector(1_000_000, 10_000_000, 10_000)
PATIENCE_SECONDS = 5.0


def hashed(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def tenant(name: str, vector: Vector, *, model: str = "llama") -> Entitlement:
    """One whose key is `sk-NAME`."""
    return Entitlement(name, model, ServiceClass.GUARANTEED, vector, vector, key_hashes=(hashed(f"sk-{name}"),))


POLICY = Policy(
    models=(
        Model(
            "llama",
            (Pool("short", ("http://127.0.0.1:1",), 8192, WIDE), Pool("long", ("http://127.0.0.1:2",), 65_536, WIDE)),
            aliases=("meta/llama",),
        ),
        Model("other", (Pool("default", ("http://127.0.0.1:3",), 4096, WIDE),)),
    ),
    entitlements=(
        tenant("acme", Vector(100_000, 1_000_000, 100)),
        tenant("single", Vector(100_000, 1_000_000, 1)),
        tenant("small", Vector(1_000, 500, 100)),
        tenant("foreign", Vector(1_000, 4_000, 1), model="other"),
    ),
)
SETTINGS = Settings(POLICY, max_body_bytes=MAX_BODY_BYTES)


@dataclass
class Watching:
    """An observer that keeps what it is told."""

    decisions: list[Decided] = field(default_factory=list)
    settlements: list[Settled] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ended: list[tuple[str, str, str]] = field(default_factory=list)

    def decided(self, fact: Decided) -> None:
        self.decisions.append(fact)

    def settled(self, fact: Settled) -> None:
        self.settlements.append(fact)

    def preempted(self, model: str, entitlement: str, service_class: str) -> None:
        self.ended.append((model, entitlement, service_class))

    def ledger_call(self, operation: str, requests: int, seconds: float) -> None: ...

    def ledger_failed(self, operation: str) -> None:
        self.failures.append(operation)


@dataclass
class Sidecar:
    """One worker's parts, and where its clients find it."""

    ledger: RedisLedger
    verdicts: Verdicts
    edge: Edge
    seen: Watching
    address: str

    async def state(self, model: str = "llama") -> ModelState:
        return await self.ledger.state(model)

    async def until_idle(self, *, settled: int = 0) -> ModelState:
        """Waits until no lease is left and so many settlements were seen."""

        async def idle() -> bool:
            return (await self.state()).leases == 0 and len(self.seen.settlements) >= settled

        await until(idle)
        return await self.state()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Polls: raises TimeoutError where the condition does not come true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.005)


@asynccontextmanager
async def sidecar(url: str, folder: Path, settings: Settings = SETTINGS, **ledger: Any) -> AsyncIterator[Sidecar]:
    """A sidecar that serves on a socket in `folder`, on an empty server unless that does not answer."""
    seen = Watching()
    client = connect(url)
    options = {"lease_ms": 60_000, "timeout_ms": 2000, **ledger}
    state = RedisLedger(client, settings.policy, seen, **options)
    beliefs = LearnedBeliefs(state)
    verdicts = Verdicts(settings, state, beliefs, seen)
    edge = Edge(settings, verdicts, Settlements(settings.policy, state, beliefs, seen))
    address = f"unix:{folder / 'edge.sock'}"
    await edge.start(address)
    await edge.set_ready(ready=True)
    try:
        yield Sidecar(state, verdicts, edge, seen, address)
    finally:
        await edge.stop(0.2)
        await state.close()


class Caller:
    """Envoy's side of the sidecar's three services."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._process = channel.stream_stream(
            f"/{EXT_PROC}/Process",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=Response.FromString,
        )
        self._log = channel.stream_unary(
            f"/{ACCESS_LOG}/StreamAccessLogs",
            request_serializer=als_pb2.StreamAccessLogsMessage.SerializeToString,
            response_deserializer=als_pb2.StreamAccessLogsResponse.FromString,
        )

    def stream(self, **metadata: str) -> grpc.aio.StreamStreamCall[Any, Response]:
        return self._process(metadata=tuple(metadata.items()), wait_for_ready=True)

    async def ask(self, *messages: Request | bytes, **metadata: str) -> Response:
        """The last answer of a stream of these messages; the sidecar must have closed it after that."""
        stream = self.stream(**metadata)
        answer: object = None
        for message in messages:
            await stream.write(message)
            answer = await stream.read()
        assert isinstance(answer, Response)
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        return answer

    async def log(self, *entries: als_pb2.HTTPAccessLogEntry) -> None:
        """One batch on a stream of its own."""
        await self._log(iter([log_batch(*entries)]))

    def log_stream(self) -> grpc.aio.StreamUnaryCall[Any, Any]:
        return self._log()

    async def health(self, service: str) -> str:
        answer = await health_pb2_grpc.HealthStub(self._channel).Check(health_pb2.HealthCheckRequest(service=service))
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
