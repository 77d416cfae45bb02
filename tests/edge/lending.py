"""A ledger in memory that does what a test says: requests wait until they are granted, borrowed room is taken back.

Only for the edge; what a real one decides is tested in tests/ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from extproc.beliefs import LearnedBeliefs
from extproc.core.estimate import Beliefs
from extproc.core.facts import Category
from extproc.core.policy import ServiceClass
from extproc.core.settings import Settings
from extproc.core.wording import Limits
from extproc.ledger import (
    Admitted,
    Demand,
    ExpiredLease,
    LedgerUnavailable,
    ModelState,
    Refused,
    Settlement,
)
from extproc.server import Edge
from extproc.settlements import Settlements
from extproc.verdicts import Verdicts
from tests.edge.sidecars import SETTINGS, WIDE, Watching, tenant

LIMITS = Limits(10, 9, 0, 1000, 900, 50)
MAX_WAIT_MS = 20_000
WAITING = replace(tenant("patient", WIDE), max_wait_ms=MAX_WAIT_MS)
BORROWING = replace(tenant("borrower", WIDE), service_class=ServiceClass.PREEMPTIBLE)


def with_tenants(settings: Settings = SETTINGS) -> Settings:
    """The settings with one tenant whose requests wait, and one whose requests borrow their room."""
    policy = settings.policy
    return replace(settings, policy=replace(policy, entitlements=(*policy.entitlements, WAITING, BORROWING)))


@dataclass
class Lending:
    """Requests of tenants that may wait do; those of preemptible tenants borrow; the others are admitted."""

    waiting: dict[str, asyncio.Future[Admitted | Refused]] = field(default_factory=dict)
    borrowed: dict[str, asyncio.Future[None]] = field(default_factory=dict)  # whose claims are awaited
    asked: list[Demand] = field(default_factory=list)
    settled: list[Settlement] = field(default_factory=list)
    failing: bool = False
    failed: int = 0

    async def admit(self, demand: Demand) -> Admitted | Refused:
        self.asked.append(demand)
        if demand.entitlement.max_wait_ms == 0:
            borrows = demand.entitlement.service_class is ServiceClass.PREEMPTIBLE
            return Admitted(demand.pools[0], LIMITS, borrowed=borrows)
        future: asyncio.Future[Admitted | Refused] = asyncio.get_running_loop().create_future()
        self.waiting[demand.lease] = future
        try:
            return await future
        finally:
            del self.waiting[demand.lease]

    def grant(self, pool: str = "short") -> None:
        """Gives room to all who wait."""
        for future in self.waiting.values():
            future.set_result(Admitted(pool, LIMITS))

    async def taken_back(self, lease: str) -> None:
        if self.failing:
            self.failed += 1
            raise LedgerUnavailable("told to fail")
        self.borrowed[lease] = asyncio.get_running_loop().create_future()
        try:
            await self.borrowed[lease]
        finally:
            del self.borrowed[lease]

    def take_back(self, lease: str) -> None:
        future = self.borrowed.get(lease)
        if future is not None and not future.done():
            future.set_result(None)

    async def settle(self, settlement: Settlement) -> bool:
        self.settled.append(settlement)
        return True

    async def renew(self, _model: str, leases: Sequence[str]) -> int:
        return len(leases)

    async def expired(self, _model: str, _limit: int) -> tuple[ExpiredLease, ...]:
        return ()

    async def beliefs(self, _model: str, wanted: Sequence[tuple[str, Category]]) -> list[Beliefs]:
        return [Beliefs() for _ in wanted]

    async def state(self, _model: str) -> ModelState:
        return ModelState()

    async def alive(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Lender:
    """A worker's edge over such a ledger."""

    ledger: Lending
    edge: Edge
    seen: Watching
    address: str


@asynccontextmanager
async def lender(address: str | Path, ledger: Lending, settings: Settings) -> AsyncIterator[Lender]:
    """Serves on a socket of that path, or on host:port."""
    seen = Watching()
    beliefs = LearnedBeliefs(ledger)
    edge = Edge(
        settings,
        Verdicts(settings, ledger, beliefs, seen),
        Settlements(settings.policy, ledger, beliefs, seen),
    )
    name = f"unix:{address}" if isinstance(address, Path) else address
    await edge.start(name)
    await edge.set_ready(ready=True)
    try:
        yield Lender(ledger, edge, seen, name)
    finally:
        await edge.stop(0.2)
