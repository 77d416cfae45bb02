"""The ledger over Redis or Valkey 7+: key names, one method an operation, time-outs, errors mapped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from extproc import lua
from extproc.batching import Batching
from extproc.core import admission, estimate
from extproc.core.estimate import Average, Beliefs
from extproc.core.facts import Category
from extproc.core.observed import Observer
from extproc.core.policy import DEFAULT_WINDOW_SECONDS, Entitlement, Policy, Vector
from extproc.core.refusal import Reason
from extproc.core.wording import Limits
from extproc.ledger import (
    Admitted,
    Demand,
    EntitlementState,
    ExpiredLease,
    LedgerUnavailable,
    ModelState,
    PoolState,
    Refused,
    Settlement,
)

T = TypeVar("T")

KEY_LIFETIME_MS = 7 * 86_400_000  # idle state goes away by itself; buckets are full long before
LEARNED_LIFETIME_MS = 90 * 86_400_000
_REASONS = {1: Reason.TOKENS_PER_SECOND, 2: Reason.KV_TOKENS, 3: Reason.CONCURRENCY, 4: Reason.POOL_CAPACITY}
_ADMIT_FIELDS = 7
_OPERATIONS = ("admit", "settle", "renew", "expired", "read")
_CANCELS, _CANCEL_SECONDS = 2, 1.0
_OF_VERDICTS = ("admit", "beliefs")
_PATIENT_SECONDS = 2.0  # what nobody waits for may take: everything but a verdict's own calls


def connect(url: str) -> redis.asyncio.Redis:
    """A client that never retries by itself: a verdict has no time for it, and settlements are retried above."""
    return redis.asyncio.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=1.0, decode_responses=True, health_check_interval=0
    )


class _Pools:
    """A model's pools as every admission names them: written once."""

    def __init__(self, terms: Sequence[admission.PoolTerms]) -> None:
        self.names = [pool.name for pool in terms]
        self.numbers = {name: number for number, name in enumerate(self.names, start=1)}
        self.arguments: list[object] = [len(terms)]
        for pool in terms:
            self.arguments += _pool_arguments(pool)


class RedisLedger:
    """Implements `ledger.Ledger`. `now_ms` is for tests: without it the server's clock is used."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        policy: Policy,
        observer: Observer,
        *,
        lease_ms: int,
        timeout_ms: int,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._client = client
        self._observer = observer
        self._lease_ms = lease_ms
        self._timeout_s = timeout_ms / 1000
        self._now_ms = now_ms
        self._scripts = {name: client.register_script(lua.source(name)) for name in _OPERATIONS}
        self._pools = {model.name: _Pools(admission.terms_of(model, policy)) for model in policy.models}
        self._entitlements = {e.name: e for e in policy.entitlements}
        self._tasks: set[asyncio.Task[object]] = set()
        self._admissions = {name: self._admissions_of(name) for name in self._pools}
        self._settlements = {name: self._settlements_of(name) for name in self._pools}

    async def admit(self, demand: Demand) -> Admitted | Refused:
        """Raises LedgerUnavailable; whatever the server may still do with the request is then undone."""
        try:
            return await self._admissions[demand.model].submit(demand)
        except LedgerUnavailable:
            self._cancel(demand)
            raise

    async def settle(self, settlement: Settlement) -> bool:
        return await self._settlements[settlement.model].submit(settlement)

    async def renew(self, model: str, leases: Sequence[str]) -> int:
        keys = _keys(model, "leases", "deadlines")
        return int(await self._call("renew", keys, [self._now(), self._lease_ms, *leases], len(leases)))

    async def expired(self, model: str, limit: int) -> tuple[ExpiredLease, ...]:
        flat = await self._run("expired", _keys(model, "leases", "deadlines"), [self._now(), limit], 1)
        return tuple(_expired(lease, record) for lease, record in zip(flat[::2], flat[1::2], strict=True))

    async def state(self, model: str) -> ModelState:
        keys = _keys(model, "entitlements", "pools", "leases", "settled", "estimates")
        now, leases, entitlements, pools, settled, ratios = await self._run("read", keys, [self._now(), *Category], 1)
        totals = {name: int(tokens) for name, tokens in _pairs(settled)}
        states = {}
        for name, record in _pairs(entitlements):
            if name in self._entitlements:
                states[name] = _entitlement_state(self._entitlements[name], record.split(), int(now), totals)
        return ModelState(
            pools={name: _pool_state(record.split()) for name, record in _pairs(pools)},
            entitlements=states,
            leases=int(leases),
            bytes_per_token={
                category.value: float(record.split()[1])
                for category, record in zip(Category, ratios, strict=True)
                if record
            },
        )

    async def beliefs(self, model: str, wanted: Sequence[tuple[str, Category]]) -> list[Beliefs]:
        """What has been learned for each (entitlement, category)."""
        fields = ["overhead", "stream"]
        for entitlement, category in wanted:
            fields += [category, f"{category} {entitlement}", f"overhead {entitlement}", f"output {entitlement}"]
        [key] = _keys(model, "estimates")
        records = cast(
            "list[str | None]", await self._timed("beliefs", len(wanted), lambda: self._client.hmget(key, fields))
        )
        return [_beliefs(records[:2], records[i : i + 4]) for i in range(2, len(records), 4)]

    async def alive(self) -> bool:
        try:
            return bool(await self._timed("ping", 1, self._client.ping))
        except LedgerUnavailable:
            return False

    async def close(self) -> None:
        """Closes the connections. Leases not yet given back expire at their deadlines."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def _admissions_of(self, model: str) -> Batching[Demand, Admitted | Refused]:
        async def call(demands: Sequence[Demand]) -> list[Admitted | Refused]:
            return await self._admit_all(model, demands)

        def abandoned(demand: Demand, answer: Admitted | Refused) -> None:
            if isinstance(answer, Admitted):
                self._cancel(demand)

        return Batching(call, abandoned)

    def _settlements_of(self, model: str) -> Batching[Settlement, bool]:
        async def call(settlements: Sequence[Settlement]) -> list[bool]:
            return await self._settle_all(model, settlements)

        return Batching(call)

    async def _admit_all(self, model: str, demands: Sequence[Demand]) -> list[Admitted | Refused]:
        pools = self._pools[model]
        arguments: list[object] = [self._now(), self._lease_ms, KEY_LIFETIME_MS, *pools.arguments]
        for demand in demands:
            arguments += _demand_arguments(demand)
            arguments += [len(demand.pools), *(pools.numbers[name] for name in demand.pools)]
        keys = _keys(model, "entitlements", "pools", "leases", "deadlines")
        flat = await self._run("admit", keys, arguments, len(demands))
        return [
            _decision(pools.names, demand.entitlement, flat[i * _ADMIT_FIELDS : (i + 1) * _ADMIT_FIELDS])
            for i, demand in enumerate(demands)
        ]

    async def _settle_all(self, model: str, settlements: Sequence[Settlement]) -> list[bool]:
        arguments: list[object] = [
            self._now(), KEY_LIFETIME_MS, LEARNED_LIFETIME_MS,
            estimate.BETA, estimate.PRIOR_BYTES_PER_TOKEN, estimate.PRIOR_MESSAGE_TOKENS, estimate.OUTPUT_QUANTILE,
        ]  # fmt: skip
        for settlement in settlements:
            arguments += _settlement_arguments(settlement)
        keys = _keys(model, "entitlements", "pools", "leases", "deadlines", "settled", "estimates")
        flat = await self._run("settle", keys, arguments, len(settlements))
        return [settled == 1 for settled in flat]

    def _cancel(self, demand: Demand) -> None:
        """Gives back a lease that nobody will use, in the background."""
        task = asyncio.create_task(self._cancelled(demand))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cancelled(self, demand: Demand) -> None:
        """Tries until the server answers, and once more: it may run the lost admission after the first cancel."""
        unused = Settlement(demand.lease, demand.model, tokens=0, prompt_tokens=0, completion_tokens=0)
        give_up, answers = time.monotonic() + self._lease_ms / 1000, 0
        while answers < _CANCELS and time.monotonic() < give_up:
            try:
                if await self.settle(unused):
                    return
                answers += 1
            except LedgerUnavailable:
                self._observer.ledger_failed("cancel")
            await asyncio.sleep(_CANCEL_SECONDS)

    async def _run(self, name: str, keys: list[str], arguments: Sequence[object], requests: int) -> list[Any]:
        return list(await self._call(name, keys, arguments, requests))

    async def _call(self, name: str, keys: list[str], arguments: Sequence[object], requests: int) -> Any:  # noqa: ANN401
        script = self._scripts[name]
        return await self._timed(name, requests, lambda: script(keys=keys, args=arguments))  # type: ignore[arg-type]

    async def _timed(self, operation: str, requests: int, call: Callable[[], Awaitable[T]]) -> T:
        started = time.perf_counter()
        task = asyncio.ensure_future(call())
        try:
            return await _in_time(task, self._timeout_s if operation in _OF_VERDICTS else _PATIENT_SECONDS)
        except (RedisError, OSError, TimeoutError) as fault:
            self._observer.ledger_failed(operation)
            raise LedgerUnavailable(f"{operation}: {fault!r}") from fault
        finally:
            self._observer.ledger_call(operation, requests, time.perf_counter() - started)

    def _now(self) -> str:
        return "" if self._now_ms is None else str(self._now_ms())


async def _in_time(task: asyncio.Future[T], seconds: float) -> T:
    try:
        await asyncio.wait((task,), timeout=seconds)
        if not task.done():  # this process may have been the slow one: let it read what has arrived
            await asyncio.wait((task,), timeout=0.001)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds * 1000:.0f} ms")
        return task.result()
    finally:
        task.cancel()


def _keys(model: str, *names: str) -> list[str]:
    return [f"tp1:{{{model}}}:{name}" for name in names]


def _pool_arguments(pool: admission.PoolTerms) -> list[object]:
    capacity, milli = pool.capacity, admission.MILLI
    arguments: list[object] = [
        pool.name, capacity.kv_tokens, capacity.concurrency, capacity.tokens_per_second, pool.depth * milli
    ]  # fmt: skip
    for promise in pool.promises:
        arguments += [promise.kv_tokens, promise.concurrency, promise.rate, promise.depth * milli]
    return arguments


def _demand_arguments(demand: Demand) -> list[object]:
    entitlement, buckets, milli = demand.entitlement, admission.buckets(demand.entitlement), admission.MILLI
    return [
        demand.lease, entitlement.name, entitlement.service_class.tier,
        buckets.base_rate, entitlement.base.kv_tokens, entitlement.base.concurrency, buckets.base_depth * milli,
        buckets.excess_rate, buckets.excess_depth * milli, entitlement.caps.kv_tokens, entitlement.caps.concurrency,
        demand.tokens, demand.kv_tokens,
    ]  # fmt: skip


def _decision(names: Sequence[str], entitlement: Entitlement, flat: Sequence[int]) -> Admitted | Refused:
    outcome, number, retry_ms, slots_left, slots_reset_ms, tokens_left, tokens_reset_ms = flat
    limits = Limits(
        slots_limit=entitlement.caps.concurrency,
        slots_left=slots_left,
        slots_reset_ms=slots_reset_ms,
        tokens_limit=admission.buckets(entitlement).depth,
        tokens_left=tokens_left,
        tokens_reset_ms=tokens_reset_ms,
    )
    return Admitted(names[number - 1], limits) if outcome == 0 else Refused(_REASONS[outcome], retry_ms, limits)


def _settlement_arguments(settlement: Settlement) -> list[object]:
    seen = settlement.observation
    learned: list[object] = ["", 0, 0, 0, 0, 1]
    if seen is not None:
        learned = [
            seen.category.value,
            seen.text_bytes,
            seen.messages,
            seen.prompt_tokens,
            seen.stream_bytes,
            seen.answers,
        ]
    return [
        settlement.lease, settlement.tokens, settlement.prompt_tokens, settlement.completion_tokens, *learned
    ]  # fmt: skip


def _pairs(flat: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _expired(lease: str, record: str) -> ExpiredLease:
    entitlement, pool, _tier, _in_base, tokens, kv, *_ = record.split()
    return ExpiredLease(lease, entitlement, pool, int(tokens), int(kv))


def _entitlement_state(
    entitlement: Entitlement, record: Sequence[str], now_ms: int, totals: dict[str, int]
) -> EntitlementState:
    held, kv, slots, _, _, level, excess, at, _, peak_kv, peak_slots = (int(value) for value in record)
    sizes, elapsed = admission.buckets(entitlement), max(0, now_ms - at)
    balance = min(sizes.base_depth * admission.MILLI, level + sizes.base_rate * elapsed)
    balance += min(sizes.excess_depth * admission.MILLI, excess + sizes.excess_rate * elapsed)
    return EntitlementState(
        in_use=Vector(-(-held // entitlement.window_seconds), kv, slots),
        peak=Vector(0, peak_kv, peak_slots),
        balance_tokens=balance // admission.MILLI,
        settled_prompt_tokens=totals.get(f"{entitlement.name} prompt", 0),
        settled_completion_tokens=totals.get(f"{entitlement.name} completion", 0),
    )


def _pool_state(record: Sequence[str]) -> PoolState:
    held, kv, slots = (int(value) for value in record[:3])
    return PoolState(Vector(-(-held // DEFAULT_WINDOW_SECONDS), kv, slots))


def _average(record: str | None, prior: float) -> Average:
    if record is None:
        return Average(0, prior)
    n, mean, *deviation = (float(value) for value in record.split())
    return Average(int(n), mean, *deviation)


def _beliefs(of_all: Sequence[str | None], of_one: Sequence[str | None]) -> Beliefs:
    overhead_of_model, stream = of_all
    of_model, of_entitlement, overhead, output = of_one
    return Beliefs(
        of_model=_average(of_model, estimate.PRIOR_BYTES_PER_TOKEN),
        of_entitlement=_average(of_entitlement, estimate.PRIOR_BYTES_PER_TOKEN),
        overhead_of_model=_average(overhead_of_model, estimate.PRIOR_MESSAGE_TOKENS),
        overhead_of_entitlement=_average(overhead, estimate.PRIOR_MESSAGE_TOKENS),
        output=_average(output, estimate.PRIOR_OUTPUT_TOKENS),
        stream_bytes_per_token=_average(stream, estimate.PRIOR_STREAM_BYTES_PER_TOKEN).mean,
    )
