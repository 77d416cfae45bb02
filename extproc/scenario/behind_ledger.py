"""The trace behind the real ledger: admission, waiting and shares as in production; the server and time are simulated.

Time stands still while Redis works: it moves on when all that wait are known to Redis, and it can grant none of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from extproc.core.observed import Decided, Settled
from extproc.core.policy import Cost, Entitlement, Model, Policy, Pool, ServiceClass, Sharing, Vector
from extproc.core.tick import Terms as TickTerms
from extproc.core.tick import terms, tick
from extproc.ledger import Admitted, Demand, Refused, Settlement, Stewardship
from extproc.redis_ledger import RedisControl, RedisLedger, connect
from extproc.scenario.arena import MAX_MODEL_LEN, Ask
from extproc.scenario.engine import Engine, Run
from extproc.scenario.vtc import OUTPUT_WEIGHT, PROMPT_WEIGHT, service

MODEL, POOL = "llama-2-7b", "default"
HOLDER = "scenario"
TICK_MS = 1000
BEGIN_MS = 1_000_000  # the ledger's time when the trace begins: never 0, which means "not yet"
LEASE_MS = 3_600_000  # longer than any run: nothing renews leases here
CALL_MS = 5000  # of real time
QUIET_SECONDS = 30.0  # of real time

Progress = Callable[[float], None]  # is told the trace's seconds


class Disquiet(Exception):  # noqa: N818 - it names the state of affairs
    """The ledger and its waiters disagree for good about who waits: a fault of the ledger. Report it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What is promised, to all clients alike."""

    # More than the server has: a lease holds room for the whole answer from the start, and an answer fills it as it
    # grows, so that half of all answers' tokens are free on average.
    kv_tokens: int = 15_500
    concurrency: int = 54
    tokens_per_second: int = 1500  # of service, as VTC weighs it
    max_wait_ms: int = 600_000
    max_waiting: int = 1000
    sharing: Sharing = field(default_factory=Sharing)


class Clock:
    """The ledger's: milliseconds of the trace."""

    def __init__(self) -> None:
        self.trace_ms = 0.0

    def now_ms(self) -> int:
        return BEGIN_MS + int(self.trace_ms)


class Unobserved:
    """An observer that keeps nothing."""

    def decided(self, fact: Decided) -> None: ...

    def settled(self, fact: Settled) -> None: ...

    def ledger_call(self, operation: str, requests: int, seconds: float) -> None: ...

    def ledger_failed(self, operation: str) -> None: ...

    def preempted(self, model: str, entitlement: str, service_class: str) -> None: ...


def policy(clients: Sequence[str], offer: Offer) -> Policy:
    """Every client may have the same, and any of them all."""
    capacity = Vector(offer.tokens_per_second, offer.kv_tokens, offer.concurrency)
    count = max(1, len(clients))
    base = Vector(capacity.tokens_per_second // count, capacity.kv_tokens // count, capacity.concurrency // count)
    pool = Pool(POOL, ("sim://",), MAX_MODEL_LEN, capacity)
    cost = Cost(prompt=PROMPT_WEIGHT, cached_prompt=PROMPT_WEIGHT, completion=OUTPUT_WEIGHT)
    entitlements = tuple(
        Entitlement(
            name=_name(client),
            model=MODEL,
            service_class=ServiceClass.ELASTIC,
            base=base,
            caps=capacity,
            max_wait_ms=offer.max_wait_ms,
            max_waiting=offer.max_waiting,
        )
        for client in clients
    )
    return Policy((Model(MODEL, (pool,), cost=cost, sharing=offer.sharing),), entitlements)


class BehindLedger:
    """One replay."""

    def __init__(self, ledger: RedisLedger, control: Stewardship, of: Policy, engine: Engine, clock: Clock) -> None:
        self._ledger = ledger
        self._control = control
        self._engine = engine
        self._clock = clock
        self._entitlements = {entitlement.name: entitlement for entitlement in of.entitlements}
        self._terms: TickTerms = terms(of.models[0], of.entitlements)
        self._next_tick_ms = 0.0
        self._asked: dict[asyncio.Task[Admitted | Refused], Ask] = {}  # not yet answered

    async def run(self, asks: Sequence[Ask], progress: Progress) -> Run:
        """Raises LedgerUnavailable, and Disquiet."""
        coming = deque(asks)
        while (now_ms := self._next_ms(coming)) is not None:
            self._clock.trace_ms = now_ms
            await self._happens(coming)
            progress(now_ms / 1000)
        return self._engine.run(asks)

    def _next_ms(self, coming: Sequence[Ask]) -> float | None:
        times = [self._engine.next_event_ms, coming[0].at_ms if coming else None]
        if self._asked or any(time is not None for time in times):
            times.append(self._next_tick_ms)
        return min((time for time in times if time is not None), default=None)

    async def _happens(self, coming: deque[Ask]) -> None:
        """One thing after the other, so that a run can be repeated."""
        now_ms = self._clock.trace_ms
        for ask in self._engine.advance(now_ms).finished:
            await self._ledger.settle(_settlement(ask))
            await self._until_quiet()
        if now_ms >= self._next_tick_ms:
            self._next_tick_ms += TICK_MS
            await self._tick()
            self._give_up()
            await self._until_quiet()
        while coming and coming[0].at_ms <= now_ms:
            ask = coming.popleft()
            self._asked[asyncio.create_task(self._ledger.admit(self._demand(ask)))] = ask
            await self._until_quiet()

    async def _tick(self) -> None:
        term = await self._control.lead(MODEL, HOLDER, 3 * TICK_MS)
        seen = await self._control.seen(MODEL, (1,))
        await self._control.set_shares(MODEL, term, tick(self._terms, seen))

    def _give_up(self) -> None:
        """The ledger's own timers know only real time."""
        for task, ask in self._asked.items():
            waited_ms = self._clock.trace_ms - ask.at_ms
            if waited_ms >= self._entitlements[_name(ask.client)].max_wait_ms:
                task.cancel()

    async def _until_quiet(self) -> None:
        """Those who wait are part of those without an answer; where they are as many, Redis has told all others."""
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                while await self._ledger.serve(MODEL) != len(self._asked):
                    await asyncio.sleep(0)
                    self._start_granted()
        except TimeoutError as error:
            raise Disquiet(f"{len(self._asked)} requests without an answer, but not as many in the queue") from error

    def _start_granted(self) -> None:
        for task in [task for task in self._asked if task.done()]:
            ask = self._asked.pop(task)
            if not task.cancelled() and isinstance(task.result(), Admitted):
                self._engine.submit(ask, self._clock.trace_ms)

    def _demand(self, ask: Ask) -> Demand:
        entitlement = self._entitlements[_name(ask.client)]
        tokens, kv_tokens = service(ask.prompt_tokens, ask.output_tokens), ask.prompt_tokens + ask.output_tokens
        return Demand(f"ask-{ask.number}", MODEL, entitlement, (POOL,), tokens, kv_tokens)


async def replay(url: str, asks: Sequence[Ask], engine: Engine, offer: Offer, progress: Progress) -> Run:
    """On an empty Redis. Raises LedgerUnavailable, and Disquiet."""
    clock, of = Clock(), policy(sorted({ask.client for ask in asks}), offer)
    client = connect(url)
    ledger = RedisLedger(
        client, of, Unobserved(), lease_ms=LEASE_MS, timeout_ms=CALL_MS, tick_ms=TICK_MS, now_ms=clock.now_ms
    )
    try:
        control = RedisControl(client, of, Unobserved(), now_ms=clock.now_ms)
        return await BehindLedger(ledger, control, of, engine, clock).run(asks, progress)
    finally:
        await ledger.close()


def _settlement(ask: Ask) -> Settlement:
    tokens = service(ask.prompt_tokens, ask.output_tokens)
    return Settlement(f"ask-{ask.number}", MODEL, tokens, ask.prompt_tokens, ask.output_tokens)


def _name(client: str) -> str:
    return f"client-{client}"
