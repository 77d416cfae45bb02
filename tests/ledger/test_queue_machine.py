"""Random lives of waiting requests on a real server: nothing an entitled one could have is free while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from extproc.core.policy import Policy, ServiceClass, Vector
from extproc.core.tick import terms, tick
from extproc.ledger import Admitted, Demand, ModelState, Refused, Settlement
from extproc.redis_ledger import RedisControl, RedisLedger, connect
from tests.ledger.conftest import LEASE_MS, Silent, entitlement, model

CAPACITY = Vector(1_000_000, 1200, 6)
OF = model(only=CAPACITY)
ENTITLEMENTS = tuple(
    replace(entitlement(name, of, vector, CAPACITY), max_wait_ms=60_000)
    for name, of, vector in (
        ("guaranteed", ServiceClass.GUARANTEED, Vector(1000, 300, 2)),
        ("a", ServiceClass.ELASTIC, Vector(1000, 400, 2)),
        ("b", ServiceClass.ELASTIC, Vector(1000, 400, 2)),
        ("spot", ServiceClass.SPOT, CAPACITY),
    )
)
BY_NAME = {e.name: e for e in ENTITLEMENTS}
T = TypeVar("T")


@dataclass
class Asked:
    demand: Demand
    task: asyncio.Task[Admitted | Refused]
    order: int


class QueueLife(RuleBasedStateMachine):
    """Two sidecars share one server; the test sets the URL."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 5_000_000
        self.asked: list[Asked] = []
        self.held: dict[str, Demand] = {}
        self.count = 0

    def run(self, awaitable: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def start(self) -> None:
        async def make() -> tuple[RedisControl, list[RedisLedger]]:
            policy, clients = Policy((OF,), ENTITLEMENTS), [connect(self.url) for _ in range(3)]
            await clients[0].flushall()
            ledgers = [
                RedisLedger(client, policy, Silent(), lease_ms=LEASE_MS, timeout_ms=60_000, now_ms=lambda: self.now)
                for client in clients[:2]
            ]
            return RedisControl(clients[2], policy, Silent(), now_ms=lambda: self.now), ledgers

        self.control, self.ledgers = self.run(make())

    def teardown(self) -> None:
        async def close() -> None:
            for one in self.asked:
                one.task.cancel()
            await asyncio.gather(*(one.task for one in self.asked), return_exceptions=True)
            await self.quiet()
            for ledger in self.ledgers:
                await ledger.close()
            await self.control._client.aclose()

        if hasattr(self, "ledgers"):
            self.run(close())
        self.loop.close()

    async def quiet(self) -> None:
        """Until the server says that exactly those wait whose tasks have no answer."""
        while await self.ledgers[0].serve("m") != sum(not one.task.done() for one in self.asked):
            pass
        for one in [one for one in self.asked if one.task.done()]:
            self.asked.remove(one)
            if not one.task.cancelled():
                assert isinstance(one.task.result(), Admitted)  # all may wait for longer than this test takes
                self.held[one.demand.lease] = one.demand

    @rule(name=st.sampled_from(sorted(BY_NAME)), kv=st.integers(50, 300))
    def ask(self, name: str, kv: int) -> None:
        async def ask() -> None:
            self.count += 1
            demand = Demand(f"lease-{self.count}", "m", BY_NAME[name], ("only",), 10, kv)
            task = asyncio.create_task(self.ledgers[self.count % 2].admit(demand))
            self.asked.append(Asked(demand, task, self.count))
            while not task.done() and demand.lease not in self.ledgers[self.count % 2]._waiting:
                await self.ledgers[0].alive()
            await self.quiet()

        self.now += 1
        self.run(ask())

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        async def settle(lease: str) -> None:
            assert await self.ledgers[1].settle(Settlement(lease, "m", 10, 10, 0))
            await self.quiet()

        lease = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[lease]
        self.run(settle(lease))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        async def hang_up(one: Asked) -> None:
            one.task.cancel()
            await asyncio.gather(one.task, return_exceptions=True)
            await self.quiet()

        self.run(hang_up(data.draw(st.sampled_from(self.asked))))

    @rule(ms=st.sampled_from([100, 1000]))
    def the_controller_ticks(self, ms: int) -> None:
        async def step() -> None:
            seen = await self.control.seen("m", (1,))
            shares = tick(terms(OF, ENTITLEMENTS), seen)
            assert await self.control.set_shares("m", await self.control.lead("m", "test", 3_000), shares)
            await self.quiet()

        self.now += ms
        self.run(step())

    @invariant()
    def nothing_is_free_that_one_who_waits_could_have(self) -> None:
        if not hasattr(self, "ledgers"):
            return
        state = self.run(self.ledgers[0].state("m"))
        first: dict[str, Asked] = {}
        for one in sorted(self.asked, key=lambda one: one.order):
            first.setdefault(one.demand.entitlement.name, one)
        for one in first.values():
            assert self.must_wait(one.demand, state), f"{one.demand} waits for nothing"

    def must_wait(self, demand: Demand, state: ModelState) -> bool:
        """Its cap is used up, or less is free than it needs beside all that others may still claim."""
        e, own = demand.entitlement, state.entitlements[demand.entitlement.name]
        cap = own.cap or e.caps
        if own.in_use.kv_tokens + demand.kv_tokens > cap.kv_tokens or own.in_use.concurrency + 1 > cap.concurrency:
            return True
        return any(
            getattr(state.pools["only"].in_use, unit) + wanted + self.kept(e.name, unit, wanted, state)
            > getattr(CAPACITY, unit)
            for unit, wanted in (("kv_tokens", demand.kv_tokens), ("concurrency", 1))
        )

    def kept(self, name: str, unit: str, wanted: int, state: ModelState) -> int:
        """What is left of the guaranteed base, of one's own what will be; shares of other elastic ones whole."""
        left = self.left_of_base(unit, state)
        own = min(wanted, left) if name == "guaranteed" else 0
        others = 0 if wanted <= own else sum(self.share(other, unit, state) for other in "ab" if other != name)
        return left - own + others

    def left_of_base(self, unit: str, state: ModelState) -> int:
        known = state.entitlements.get("guaranteed")
        used: int = getattr(known.in_use, unit) if known else 0
        base: int = getattr(BY_NAME["guaranteed"].base, unit)
        return max(0, base - used)

    def share(self, name: str, unit: str, state: ModelState) -> int:
        known = state.entitlements.get(name)
        found: int = getattr(known.share if known and known.share else BY_NAME[name].base, unit)
        return found

    @invariant()
    def a_guaranteed_request_inside_its_base_never_waits(self) -> None:
        waiting = [one for one in self.asked if one.demand.entitlement.name == "guaranteed"]
        held = [demand for demand in self.held.values() if demand.entitlement.name == "guaranteed"]
        base = BY_NAME["guaranteed"].base
        for one in waiting:
            kv = sum(demand.kv_tokens for demand in held) + one.demand.kv_tokens
            assert len(held) + 1 > base.concurrency or kv > base.kv_tokens


@pytest.mark.timeout(300)
def test_what_is_free_goes_to_those_who_wait(redis_url: str) -> None:
    run_machine(
        type("Machine", (QueueLife,), {"url": redis_url}),
        settings=settings(
            max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
