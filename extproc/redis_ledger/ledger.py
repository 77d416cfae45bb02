"""The ledger over Redis or Valkey 7+: one method an operation, concurrent requests joined, waiting ones told."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio

from extproc.batching import Batching
from extproc.core import admission
from extproc.core.estimate import Beliefs
from extproc.core.facts import Category
from extproc.core.observed import Observer
from extproc.core.policy import Policy
from extproc.ledger import (
    Admitted,
    Demand,
    ExpiredLease,
    LedgerUnavailable,
    ModelState,
    Refused,
    Settlement,
)
from extproc.redis_ledger import learned, records
from extproc.redis_ledger.calls import KEY_LIFETIME_MS, LEARNED_LIFETIME_MS, Calls, keys, pairs
from extproc.redis_ledger.news import News

_OPERATIONS = ("admit", "settle", "renew", "expired", "read")
_ADMIT_KEYS = (
    *("entitlements", "pools", "leases", "deadlines", "uses"),
    *("borrowed", "unmet", "queue", "waiters", "shares"),
)
_SETTLE_KEYS = (
    *("entitlements", "pools", "leases", "deadlines", "settled", "estimates"),
    *("uses", "borrowed", "queue", "waiters"),
)
_CANCELS, _CANCEL_SECONDS = 2, 1.0
_AGAIN_SECONDS = 0.2  # between tries of what must be known
_MOST_WAITING = 1000  # of a model: bounds what one call may look through
_REMEMBER_TICKS = 5  # for so long a refused request counts as demand after it was due again


@dataclass(frozen=True, slots=True)
class _Ask:
    demand: Demand
    wait_ms: int


@dataclass(frozen=True, slots=True)
class _End:
    settlement: Settlement
    owner: str = ""  # the channel of the only worker whose lease it may be


_Answer = Admitted | Refused | None  # None: it waits


class _Pools:
    """A model's pools as every admission names them: written once."""

    def __init__(self, terms: Sequence[admission.PoolTerms]) -> None:
        self.names = [pool.name for pool in terms]
        self.arguments: list[object] = [len(terms)]
        for pool in terms:
            self.arguments += records.pool_arguments(pool)


class RedisLedger:
    """Implements `ledger.Ledger`. `now_ms` is for tests: without it the server's clock is used."""

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        client: redis.asyncio.Redis,
        policy: Policy,
        observer: Observer,
        *,
        lease_ms: int,
        timeout_ms: int,
        tick_ms: int = 1000,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._client = client
        self._calls = Calls(client, observer, _OPERATIONS, now_ms)
        self._observer = observer
        self._lease_ms = lease_ms
        self._verdict_seconds = timeout_ms / 1000
        self._tick_ms = tick_ms
        self._pools = {model.name: _Pools(admission.terms_of(model, policy)) for model in policy.models}
        self._entitlements = {e.name: e for e in policy.entitlements}
        self._tasks: set[asyncio.Task[object]] = set()
        self._admissions = {name: self._admissions_of(name) for name in self._pools}
        self._settlements = {name: self._settlements_of(name) for name in self._pools}
        self._news = News(client, self._decoded, self._catch_up)
        self._waiting: dict[str, Demand] = {}  # by lease
        self._borrowed: dict[str, str] = {}  # model by lease
        self._serving: set[str] = set()  # models whose queue is about to be served
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def admit(self, demand: Demand) -> Admitted | Refused:
        """Raises LedgerUnavailable; whatever the server may still do with the request is then undone."""
        entitlement = demand.entitlement
        if not entitlement.max_wait_ms and not entitlement.service_class.surplus:
            return await self._judged(_Ask(demand, 0))
        if not await self._news.ready(self._verdict_seconds):
            raise LedgerUnavailable("news: not subscribed in time")
        if entitlement.service_class.surplus:
            self._news.watch(demand.lease)
        answer: Admitted | Refused | None = None
        try:
            answer = await self._admitted_in_time(demand)
        except asyncio.CancelledError:  # wherever it was: what it may hold or wait for is given back
            self._cancel(demand)
            raise
        finally:
            if isinstance(answer, Admitted) and answer.borrowed:
                self._borrowed[demand.lease] = demand.model
            else:
                self._news.forget(demand.lease)
        return answer

    async def taken_back(self, lease: str) -> None:
        try:
            await self._news.watch(lease)
        finally:
            self._forget(lease)

    async def serve(self, model: str) -> int:
        """Grants what it can to those that wait; how many still do."""
        arguments = [*self._admit_arguments(), *self._pools[model].arguments]
        flat = await self._calls.run("admit", keys(model, *_ADMIT_KEYS), arguments, 0)
        return self._after_admissions(model, flat)

    async def settle(self, settlement: Settlement) -> bool:
        self._forget(settlement.lease)
        return await self._settlements[settlement.model].submit(_End(settlement))

    def _forget(self, lease: str) -> None:
        self._news.forget(lease)
        self._borrowed.pop(lease, None)

    async def renew(self, model: str, leases: Sequence[str]) -> int:
        arguments = [self._calls.now(), self._lease_ms, *leases]
        return int(await self._calls.run("renew", keys(model, "leases", "deadlines"), arguments, len(leases)))

    async def expired(self, model: str, limit: int) -> tuple[ExpiredLease, ...]:
        flat = await self._calls.run("expired", keys(model, "leases", "deadlines"), [self._calls.now(), limit])
        return tuple(records.expired_lease(lease, record) for lease, record in pairs(flat))

    async def state(self, model: str) -> ModelState:
        wanted = keys(model, "entitlements", "pools", "leases", "settled", "estimates", "shares", "waiters")
        answer = await self._calls.run("read", wanted, [self._calls.now(), *learned.CLASS_FIELDS])
        now, leases, entitlements, pools, settled, shares, waiters, classes = answer
        totals = {name: int(tokens) for name, tokens in pairs(settled)}
        share_of, pool_records = dict(pairs(shares)), dict(pairs(pools))
        waiting = Counter(record.split(" ", 1)[0] for record in waiters)
        used = dict(pairs(entitlements))
        states = {
            name: records.entitlement_state(
                self._entitlements[name],
                used.get(name, records.UNTOUCHED).split(),
                share_of.get(name),
                int(now),
                totals,
                waiting[name],
            )
            for name in {**used, **share_of}
            if name in self._entitlements
        }
        return ModelState(
            pools={
                name: records.pool_state(pool_records.get(name), share_of.get(f"pool {name}"))
                for name in self._pools[model].names
            },
            entitlements=states,
            leases=int(leases),
            bytes_per_token=learned.bytes_per_token(classes),
        )

    async def beliefs(self, model: str, wanted: Sequence[tuple[str, Category]]) -> list[Beliefs]:
        """What has been learned for each (entitlement, category)."""
        fields = list(learned.SHARED_FIELDS)
        for entitlement, category in wanted:
            fields += learned.own_fields(entitlement, category)
        [key] = keys(model, "estimates")
        answer = await self._calls.timed(
            "beliefs", len(wanted), lambda: self._client.hmget(key, fields), self._verdict_seconds
        )
        found = iter(cast("list[str | None]", answer))
        categories = [category for _entitlement, category in wanted]
        shared = learned.shared([next(found) for _ in learned.SHARED_FIELDS], categories)
        return [
            learned.beliefs(shared, category, [next(found) for _ in range(learned.OWN_FIELDS)])
            for category in categories
        ]

    async def alive(self) -> bool:
        try:
            return bool(await self._calls.timed("ping", 1, self._client.ping))
        except LedgerUnavailable:
            return False

    async def close(self) -> None:
        """Closes the connections. Leases not yet given back expire at their deadlines."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for admissions in self._admissions.values():
            await admissions.close()
        for settlements in self._settlements.values():
            await settlements.close()
        await self._news.close()
        await self._client.aclose()

    def _admissions_of(self, model: str) -> Batching[_Ask, _Answer]:
        async def call(asks: Sequence[_Ask]) -> list[_Answer]:
            return await self._admit_all(model, asks)

        def abandoned(ask: _Ask, answer: _Answer) -> None:
            if not isinstance(answer, Refused):
                self._cancel(ask.demand)

        return Batching(call, abandoned, lambda ask: self._cancel(ask.demand))

    def _settlements_of(self, model: str) -> Batching[_End, bool]:
        async def call(ends: Sequence[_End]) -> list[bool]:
            return await self._settle_all(model, ends)

        return Batching(call)

    async def _judged(self, ask: _Ask) -> Admitted | Refused:
        """Of a request that does not wait, or no longer."""
        answer = await self._answered(ask)
        if answer is None:
            raise LedgerUnavailable("admit: it waits although it may not")
        return answer

    async def _answered(self, ask: _Ask) -> _Answer:
        try:
            return await self._admissions[ask.demand.model].submit(ask)
        except LedgerUnavailable:
            self._cancel(ask.demand)
            raise

    async def _admitted_in_time(self, demand: Demand) -> Admitted | Refused:
        wait_ms = demand.entitlement.max_wait_ms
        self._waiting[demand.lease] = demand
        try:
            with self._news.awaiting(demand.lease) as grant:
                answer = await self._answered(_Ask(demand, wait_ms))
                if answer is not None:
                    return answer
                async with asyncio.timeout(wait_ms / 1000):
                    return await grant
        except TimeoutError:
            return await self._judged(_Ask(demand, 0))
        finally:
            self._waiting.pop(demand.lease, None)

    def _decoded(self, lease: str, values: Sequence[int]) -> Admitted | Refused | None:
        demand = self._waiting.get(lease)
        return None if demand is None else self._decision(demand, values)

    def _decision(self, demand: Demand, values: Sequence[int]) -> Admitted | Refused:
        return records.decision(self._pools[demand.model].names, demand.entitlement, values)

    def _admit_arguments(self) -> list[object]:
        remember_ms = _REMEMBER_TICKS * self._tick_ms
        return [self._calls.now(), self._lease_ms, KEY_LIFETIME_MS, remember_ms, _MOST_WAITING]

    async def _admit_all(self, model: str, asks: Sequence[_Ask]) -> list[_Answer]:
        arguments = [*self._admit_arguments(), *self._pools[model].arguments]
        for ask in asks:
            arguments += records.demand_arguments(ask.demand, self._news.channel, ask.wait_ms)
        flat = await self._calls.run("admit", keys(model, *_ADMIT_KEYS), arguments, len(asks), self._verdict_seconds)
        self._after_admissions(model, flat)
        size = records.ADMIT_FIELDS
        answers = [flat[i * size : (i + 1) * size] for i in range(len(asks))]
        return [
            None if values[0] == records.WAITS else self._decision(ask.demand, values)
            for ask, values in zip(asks, answers, strict=True)
        ]

    def _after_admissions(self, model: str, flat: Sequence[int]) -> int:
        """How many wait.

        Capacity wakes them, by whoever frees it; only what time alone brings needs a timer: tokens, and new shares
        with each tick.
        """
        waiting, soonest_ms = flat[-2:]
        if waiting:
            self._serve_in(model, min(soonest_ms, self._tick_ms) / 1000)
        return int(waiting)

    def _serve_in(self, model: str, seconds: float) -> None:
        """At the latest: a call that is due sooner stays."""
        loop, timer = asyncio.get_running_loop(), self._timers.get(model)
        due = loop.time() + max(seconds, 0.001)
        if timer is None or timer.when() > due:
            if timer is not None:
                timer.cancel()
            self._timers[model] = loop.call_at(due, self._timed_out, model)

    def _timed_out(self, model: str) -> None:
        del self._timers[model]
        if any(demand.model == model for demand in self._waiting.values()):
            self._serve_soon(model)

    def _serve_soon(self, model: str) -> None:
        if model not in self._serving:
            self._serving.add(model)
            self._start(self._serve(model))

    async def _serve(self, model: str) -> None:
        self._serving.discard(model)  # what is freed from here on needs another call
        try:
            await self.serve(model)
        except LedgerUnavailable:
            self._serve_in(model, self._tick_ms / 1000)

    async def _settle_all(self, model: str, ends: Sequence[_End]) -> list[bool]:
        arguments: list[object] = [
            self._calls.now(), KEY_LIFETIME_MS, LEARNED_LIFETIME_MS,
            *learned.CONSTANTS,
        ]  # fmt: skip
        for end in ends:
            arguments += records.settlement_arguments(end.settlement, end.owner)
        *settled, waiting = await self._calls.run("settle", keys(model, *_SETTLE_KEYS), arguments, len(ends))
        if waiting:
            self._serve_soon(model)
        return [one == 1 for one in settled]

    async def _catch_up(self) -> None:
        """After an interruption: asks for what may have been published meanwhile."""
        for demand in list(self._waiting.values()):
            self._start(self._ask_again(demand))
        by_model: dict[str, list[str]] = {}
        for lease, model in self._borrowed.items():
            by_model.setdefault(model, []).append(lease)
        for model, leases in by_model.items():
            self._start(self._look_after(model, leases))

    async def _ask_again(self, demand: Demand) -> None:
        """The server answers a waiting or granted request the same, however often it is asked."""
        while demand.lease in self._waiting:
            try:
                answer = await self._admissions[demand.model].submit(_Ask(demand, demand.entitlement.max_wait_ms))
            except LedgerUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            grant = self._news.waiting.get(demand.lease)
            if answer is not None and grant is not None and not grant.done():
                grant.set_result(answer)
            return

    async def _look_after(self, model: str, leases: Sequence[str]) -> None:
        [key] = keys(model, "leases")
        while True:
            try:
                found = await self._calls.timed("leases", len(leases), lambda: self._client.hmget(key, list(leases)))
                break
            except LedgerUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)
        for lease, record in zip(leases, cast("list[str | None]", found), strict=True):
            if records.is_taken(record):
                self._news.taken(lease)

    def _start(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel(self, demand: Demand) -> None:
        """Gives back a lease that nobody will use, in the background; unless another worker was asked for it since."""
        self._start(self._cancelled(demand))

    async def _cancelled(self, demand: Demand) -> None:
        """Tries until the server answers, and once more: it may run the lost admission after the first cancel."""
        unused = Settlement(demand.lease, demand.model, tokens=0, prompt_tokens=0, completion_tokens=0)
        end = _End(unused, self._news.channel)
        give_up, answers = time.monotonic() + self._lease_ms / 1000, 0
        while answers < _CANCELS and time.monotonic() < give_up:
            try:
                if await self._settlements[demand.model].submit(end):
                    return
                answers += 1
            except LedgerUnavailable:
                self._observer.ledger_failed("cancel")
            await asyncio.sleep(_CANCEL_SECONDS)
