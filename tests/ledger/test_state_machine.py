"""Random lives of leases on a real server, checked after every step against the promises of admission."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from extproc.core.policy import Entitlement, Model, Policy, ServiceClass, Vector
from extproc.core.refusal import Reason
from extproc.core.tick import terms, tick
from extproc.ledger import Admitted, Demand, ModelState, Refused, Settlement
from extproc.redis_ledger import RedisControl, RedisLedger, connect
from tests.ledger.conftest import LEASE_MS, Silent, entitlement, model


@dataclass(frozen=True)
class World:
    """One model and its tenants; with plentiful rates only occupancy can refuse, and refusals are checked exactly."""

    plentiful: bool
    model: Model
    entitlements: tuple[Entitlement, ...]

    @property
    def by_name(self) -> dict[str, Entitlement]:
        return {e.name: e for e in self.entitlements}


def world(rate: int) -> World:
    entitlements = (
        entitlement("dedicated", ServiceClass.DEDICATED, Vector(40 * rate, 200, 2), Vector(80 * rate, 500, 4)),
        entitlement("guaranteed", ServiceClass.GUARANTEED, Vector(60 * rate, 300, 3), Vector(120 * rate, 700, 6)),
        entitlement("elastic", ServiceClass.ELASTIC, Vector(50 * rate, 300, 2), Vector(150 * rate, 900, 9)),
        entitlement("spot", ServiceClass.SPOT, Vector(300 * rate, 2000, 12)),
        entitlement("preemptible", ServiceClass.PREEMPTIBLE, Vector(300 * rate, 2000, 12)),
    )
    return World(rate > 1, model(short=Vector(400 * rate, 900, 8), long=Vector(200 * rate, 1800, 6)), entitlements)


T = TypeVar("T")

NAMES = ("dedicated", "guaranteed", "elastic", "spot", "preemptible")

# Which lease, counted round: of those that ask at once the server's order decides who is admitted, and what is drawn
# must not depend on that.
PICKS = st.integers(0, 59)
TIMEOUT_MS = 60_000  # a machine that stands still for a while is no failure


@dataclass
class Live:
    """A lease; `kv` and `slots` are what it holds now: nothing more once it was taken back."""

    name: str
    pool: str
    tokens: int
    kv: int
    deadline_ms: int
    slots: int = 1
    borrowed: bool = False


def held_by(leases: list[Live]) -> Vector:
    return Vector(-(-sum(x.tokens for x in leases) // 10), sum(x.kv for x in leases), sum(x.slots for x in leases))


def held(leases: list[Live], unit: str) -> int:
    found: int = getattr(held_by(leases), unit)
    return found


class LedgerLife(RuleBasedStateMachine):
    """Three sidecars share one server; the test sets the class attributes."""

    url = ""
    world = world(1)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 5_000_000
        self.live: dict[str, Live] = {}
        self.gone: list[str] = []
        self.charged = dict.fromkeys(self.world.by_name, 0)
        self.over_use = dict.fromkeys(self.world.by_name, 0)
        self.settled = dict.fromkeys(self.world.by_name, 0)
        self.count = 0

    def run(self, awaitable: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def start(self) -> None:
        async def make() -> list[RedisLedger]:
            client = connect(self.url)
            await client.flushall()
            await client.aclose()
            policy = Policy((self.world.model,), self.world.entitlements)
            return [
                RedisLedger(
                    connect(self.url),
                    policy,
                    Silent(),
                    lease_ms=LEASE_MS,
                    timeout_ms=TIMEOUT_MS,
                    now_ms=lambda: self.now,
                )
                for _ in range(3)
            ]

        self.ledgers = self.run(make())
        policy = Policy((self.world.model,), self.world.entitlements)
        self.control = RedisControl(connect(self.url), policy, Silent(), now_ms=lambda: self.now)
        self.started = self.now

    def teardown(self) -> None:
        async def close() -> None:
            for ledger in self.ledgers:
                await ledger.close()
            await self.control._calls.client.aclose()

        if hasattr(self, "ledgers"):
            self.run(close())
        self.loop.close()

    def read(self) -> ModelState:
        return self.run(self.ledgers[0].state("m"))

    @rule(
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
        tokens=st.integers(1, 400),
        kv=st.integers(1, 400),
        pools=st.sampled_from([("short", "long"), ("long",), ("short",), ("long", "short")]),
    )
    def ask_at_once(self, names: list[str], tokens: int, kv: int, pools: tuple[str, ...]) -> None:
        before = self.read()
        demands = []
        for name in names:
            self.count += 1
            demands.append(Demand(f"lease-{self.count}", "m", self.world.by_name[name], pools, tokens, kv))

        async def ask() -> list[Admitted | Refused]:
            calls = [self.ledgers[i % 3].admit(demand) for i, demand in enumerate(demands)]
            return list(await asyncio.gather(*calls))

        answers = self.run(ask())
        for demand, answer in zip(demands, answers, strict=True):
            if isinstance(answer, Admitted):
                self.live[demand.lease] = Live(
                    demand.entitlement.name, answer.pool, tokens, kv, self.now + LEASE_MS, borrowed=answer.borrowed
                )
                self.charged[demand.entitlement.name] += tokens
        self.look_for_taken()
        if len(demands) == 1 and isinstance(answers[0], Refused):
            self.check_refusal(demands[0], answers[0], before)

    def look_for_taken(self) -> None:
        """What became of the leases, as the server has them."""
        stored = self.run(self.stored())
        assert stored.keys() == self.live.keys()
        for lease, (borrowed, kv, slots) in stored.items():
            live = self.live[lease]
            if slots == 0 and live.slots == 1:
                assert live.borrowed, "a lease that was nobody's to take was taken back"
                assert kv == 0
            live.kv, live.slots, live.borrowed = kv, slots, borrowed

    async def stored(self) -> dict[str, tuple[bool, int, int]]:
        """By lease: whether it is borrowed, its KV tokens, its slots."""
        found = await self.ledgers[0]._client.hgetall("tp3:{m}:leases")
        records = {str(lease): str(record).split() for lease, record in found.items()}
        return {lease: (r[4] == "1", int(r[6]), int(r[7])) for lease, r in records.items()}

    @rule()
    def the_controller_ticks(self) -> None:
        async def set_shares() -> bool:
            seen = await self.control.seen("m", (1, 1))
            shares = tick(terms(self.world.model, self.world.entitlements), seen)
            return await self.control.set_shares("m", await self.control.lead("m", "test", 3_000), shares)

        assert self.run(set_shares())

    @rule(name=st.sampled_from(NAMES), tokens=st.integers(50, 400))
    def spend_until_refused(self, name: str, tokens: int) -> None:
        """One request after another, each settled at once: only the buckets can end it."""

        async def spend() -> int:
            for spent in range(40):
                self.count += 1
                demand = Demand(f"lease-{self.count}", "m", self.world.by_name[name], ("long", "short"), tokens, 1)
                if isinstance(await self.ledgers[spent % 3].admit(demand), Refused):
                    return spent
                await self.ledgers[0].settle(Settlement(demand.lease, "m", tokens, tokens, 0))
            return 40

        spent = self.run(spend())
        self.charged[name] += spent * tokens
        self.settled[name] += spent * tokens
        self.look_for_taken()

    def check_refusal(self, demand: Demand, answer: Refused, before: ModelState) -> None:
        """Nobody is refused while a unit he may use is free; and never a guaranteed one within its base."""
        e, state = demand.entitlement, before.entitlements.get(demand.entitlement.name)
        used = state.in_use if state else Vector()
        balance = state.balance_tokens if state else 10 * e.caps.tokens_per_second
        caps = state.cap if state and state.cap else e.caps
        assert answer.retry_ms > 0
        if answer.reason is Reason.TOKENS_PER_SECOND:
            assert demand.tokens > balance
        elif answer.reason is Reason.KV_TOKENS:
            assert used.kv_tokens + demand.kv_tokens > caps.kv_tokens
        elif answer.reason is Reason.CONCURRENCY:
            assert used.concurrency + 1 > caps.concurrency
        elif self.world.plentiful:
            assert not self.inside_base(e, used, demand), "a promise was broken"
            assert all(self.short_of_room(name, demand, before) for name in demand.pools), "room was free for it"

    def inside_base(self, e: Entitlement, used: Vector, demand: Demand) -> bool:
        fits = used.kv_tokens + demand.kv_tokens <= e.base.kv_tokens and used.concurrency < e.base.concurrency
        return e.service_class.promised and fits

    def short_of_room(self, name: str, demand: Demand, before: ModelState) -> bool:
        """Less is free in one unit than it needs beside what the table in docs/admission.md says that it leaves."""
        return any(
            self.free_for(name, unit, wanted, demand.entitlement, before) < wanted
            for unit, wanted in (("kv_tokens", demand.kv_tokens), ("concurrency", 1))
        )

    def free_for(self, pool: str, unit: str, wanted: int, e: Entitlement, before: ModelState) -> int:
        """Bases are left as far as nothing runs on them, of one's own what it will still be; shares of others whole."""
        there = [lease for lease in self.live.values() if lease.pool == pool]
        own = min(wanted, self.claimable(e.name, unit, there))
        dedicated, guaranteed = (self.claimable(name, unit, there) - own * (name == e.name) for name in NAMES[:2])
        covered = 0 if e.service_class.surplus else guaranteed  # on idle guaranteed bases a surplus class borrows
        others = 0 if wanted <= own else sum(self.share(name, unit, before) for name in self.not_after(e.name))
        free: int = getattr(self.world.model.pool(pool).capacity, unit) - held(there, unit)
        borrowed = held([lease for lease in there if lease.borrowed], unit)
        return min(free, free + borrowed - covered) - dedicated - others

    def not_after(self, name: str) -> list[str]:
        """The others whose shares it leaves: those of elastic; and of spot and preemptible, where it is one of them."""
        classes = NAMES[2:] if name in NAMES[3:] else NAMES[2:3]
        return [other for other in classes if other != name]

    def share(self, name: str, unit: str, before: ModelState) -> int:
        state = before.entitlements.get(name)
        found: int = getattr(state.share if state and state.share else self.world.by_name[name].base, unit)
        return found

    @rule(which=PICKS, share=st.sampled_from([0.0, 0.3, 1.0, 1.0, 1.7]), twice=st.booleans())
    def settle(self, which: int, share: float, twice: bool) -> None:
        if not self.live:
            return
        lease = sorted(self.live)[which % len(self.live)]
        found = self.live.pop(lease)
        used = int(found.tokens * share)
        settlement = Settlement(lease, "m", used, used, 0)

        async def settle() -> list[bool]:
            return list(await asyncio.gather(*(ledger.settle(settlement) for ledger in self.ledgers[: 1 + twice])))

        assert sum(self.run(settle())) == 1
        self.charged[found.name] += used - found.tokens
        self.over_use[found.name] += max(0, used - found.tokens)
        self.settled[found.name] += used
        self.gone.append(lease)

    @rule(which=PICKS)
    def settle_again(self, which: int) -> None:
        if self.gone:
            lease = self.gone[which % len(self.gone)]
            assert not self.run(self.ledgers[1].settle(Settlement(lease, "m", 77, 77, 0)))

    @rule(ms=st.sampled_from([1, 250, 3_000, 20_000, LEASE_MS]))
    def pass_time(self, ms: int) -> None:
        self.now += ms

    @rule()
    def sweep(self) -> None:
        due = {lease for lease, live in self.live.items() if live.deadline_ms <= self.now}
        found = self.run(self.ledgers[2].expired("m", 1000))
        assert {lease.lease for lease in found} == due
        for lease in found:
            settlement = Settlement(lease.lease, "m", lease.tokens, 0, 0)
            assert self.run(self.ledgers[2].settle(settlement))
            del self.live[lease.lease]
            self.gone.append(lease.lease)

    @invariant()
    def counters_are_the_sum_of_the_leases(self) -> None:
        state = self.read()
        assert state.leases == len(self.live)
        for name, entry in state.entitlements.items():
            mine = [lease for lease in self.live.values() if lease.name == name]
            assert entry.in_use == Vector(
                -(-sum(x.tokens for x in mine) // 10), sum(x.kv for x in mine), sum(x.slots for x in mine)
            )
            assert entry.settled_prompt_tokens == self.settled[name]
        for name, pool in state.pools.items():
            there = [lease for lease in self.live.values() if lease.pool == name]
            assert pool.in_use == held_by(there)

    @invariant()
    def nobody_is_above_his_caps_and_no_pool_above_its_capacity(self) -> None:
        state = self.read()
        for name, entry in state.entitlements.items():
            caps = self.world.by_name[name].caps
            assert entry.in_use.kv_tokens <= caps.kv_tokens
            assert entry.in_use.concurrency <= caps.concurrency
            seconds = (self.now - self.started) / 1000
            assert self.charged[name] - self.over_use[name] <= caps.tokens_per_second * (10 + seconds)
        for name, pool in state.pools.items():
            capacity = self.world.model.pool(name).capacity
            assert pool.in_use.kv_tokens <= capacity.kv_tokens
            assert pool.in_use.concurrency <= capacity.concurrency

    @invariant()
    def every_promise_can_be_claimed_now(self) -> None:
        """What is free in each pool holds the dedicated claims; with what is borrowed, the guaranteed ones too."""
        for name in ("short", "long"):
            there = [lease for lease in self.live.values() if lease.pool == name]
            capacity = self.world.model.pool(name).capacity
            for unit in ("kv_tokens", "concurrency"):
                free = getattr(capacity, unit) - held(there, unit)
                borrowed = held([lease for lease in there if lease.borrowed], unit)
                dedicated, guaranteed = (self.claimable(one, unit, there) for one in NAMES[:2])
                assert free >= dedicated
                assert free + borrowed >= dedicated + guaranteed

    def claimable(self, name: str, unit: str, there: list[Live]) -> int:
        """What a promised entitlement has left of its base in a pool with these leases."""
        e = self.world.by_name[name]
        base: int = getattr(e.base, unit) if e.service_class.promised else 0
        return max(0, base - held([lease for lease in there if lease.name == name], unit))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rate", [1, 1_000], ids=["scarce rates", "plentiful rates"])
def test_the_promises_hold_after_every_step(redis_url: str, rate: int) -> None:
    machine = type("Machine", (LedgerLife,), {"url": redis_url, "world": world(rate)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=16, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
