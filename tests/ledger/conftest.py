"""A ledger on a real server, with a clock that only the test moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from extproc.core.observed import Decided, Settled
from extproc.core.policy import Entitlement, Model, Policy, Pool, ServiceClass, Sharing, Vector
from extproc.ledger import Admitted, Demand, Refused, Settlement
from extproc.redis_ledger import RedisLedger, connect

LEASE_MS = 60_000


class Silent:
    """An observer that keeps what failed."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def decided(self, fact: Decided) -> None: ...

    def settled(self, fact: Settled) -> None: ...

    def preempted(self, model: str, entitlement: str, service_class: str) -> None: ...

    def ledger_call(self, operation: str, requests: int, seconds: float) -> None: ...

    def ledger_failed(self, operation: str) -> None:
        self.failures.append(operation)


def model(sharing: Sharing | None = None, /, **pools: Vector) -> Model:
    """A model `m` with pools of one server each, shortest first. Nothing of what may be lent is held back."""
    return Model(
        "m",
        tuple(Pool(name, (f"http://127.0.0.1:{i}",), 8192 << i, v) for i, (name, v) in enumerate(pools.items())),
        sharing=sharing or Sharing(headroom_requests=0),
    )


def entitlement(
    name: str, service_class: ServiceClass, vector: Vector, caps: Vector | None = None, window_seconds: int = 10
) -> Entitlement:
    promised = service_class in (ServiceClass.DEDICATED, ServiceClass.GUARANTEED, ServiceClass.ELASTIC)
    base = vector if promised else Vector()
    return Entitlement(name, "m", service_class, base, caps or vector, window_seconds)


@dataclass
class Bench:
    """A ledger and the moves that tests make with it."""

    ledger: RedisLedger
    policy: Policy
    now: list[int]
    names: itertools.count[int] = field(default_factory=itertools.count)

    async def ask(
        self, name: str, tokens: int = 100, kv: int | None = None, pools: tuple[str, ...] | None = None
    ) -> tuple[str, Admitted | Refused]:
        [asker] = [e for e in self.policy.entitlements if e.name == name]
        lease = f"lease-{next(self.names)}"
        every = tuple(pool.name for pool in self.policy.models[0].pools)
        demand = Demand(lease, "m", asker, pools or every, tokens, tokens if kv is None else kv)
        return lease, await self.ledger.admit(demand)

    async def ask_for(self, name: str, fingerprint: str, tokens: int = 100) -> tuple[str, Admitted | Refused]:
        """The same request again and again, by its content."""
        [asker] = [e for e in self.policy.entitlements if e.name == name]
        lease = f"lease-{next(self.names)}"
        every = tuple(pool.name for pool in self.policy.models[0].pools)
        return lease, await self.ledger.admit(Demand(lease, "m", asker, every, tokens, tokens, fingerprint))

    async def is_taken(self, lease: str) -> bool:
        """Whether a borrowed lease was taken back."""
        if lease not in self.ledger._news.borrowed:
            return False
        try:
            await asyncio.wait_for(self.ledger.taken_back(lease), 0.2)
        except TimeoutError:
            return False
        return True

    async def set_share(self, name: str, share: Vector, cap: Vector, weight: float = 1.0) -> None:
        """As the controller writes it."""
        record = [weight * 1000, *_units(cap), *_units(share), 0, 0, 0, 0, 0]
        await self.ledger._client.hset("tp3:{m}:shares", name, " ".join(f"{value:.0f}" for value in record))

    async def set_pool(self, name: str, servers: int, elastic: Vector, surplus: Vector | None = None) -> None:
        rest = surplus or Vector()
        record = [servers, *_units(elastic), rest.kv_tokens, rest.concurrency, servers]
        await self.ledger._client.hset("tp3:{m}:shares", f"pool {name}", " ".join(str(value) for value in record))

    async def settle(self, lease: str, tokens: int = 0) -> bool:
        return await self.ledger.settle(Settlement(lease, "m", tokens, tokens, 0))

    def pass_ms(self, ms: int) -> None:
        self.now[0] += ms


def _units(vector: Vector) -> tuple[int, int, int]:
    return vector.tokens_per_second, vector.kv_tokens, vector.concurrency


Benches = Callable[..., Bench]


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Benches]:
    """Makes a Bench of one model and its entitlements on an empty server."""
    client = connect(redis_url)
    await client.flushall()
    ledgers = []

    def make(of: Model, *entitlements: Entitlement) -> Bench:
        now = [1_000_000]
        policy = Policy((of,), entitlements)
        ledger = RedisLedger(client, policy, Silent(), lease_ms=LEASE_MS, timeout_ms=2000, now_ms=lambda: now[0])
        ledgers.append(ledger)
        return Bench(ledger, policy, now)

    yield make
    for ledger in ledgers:
        await ledger.close()
    await client.aclose()
