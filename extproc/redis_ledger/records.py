"""Values to the arguments that scripts take, and their records back to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from extproc.core import admission
from extproc.core.policy import DEFAULT_WINDOW_SECONDS, Entitlement, Prioritise, Vector
from extproc.core.refusal import Reason
from extproc.core.wording import Limits
from extproc.ledger import Admitted, Demand, EntitlementState, ExpiredLease, PoolState, Refused, Settlement

ADMIT_FIELDS = 8  # of one answer
WAITS = 6
UNTOUCHED = " ".join(["0"] * 13)  # record of an entitlement that nobody used yet
_REASONS = {
    1: Reason.TOKENS_PER_SECOND,
    2: Reason.KV_TOKENS,
    3: Reason.CONCURRENCY,
    4: Reason.POOL_CAPACITY,
    5: Reason.NO_SERVERS,
}
_LARGEST = 10**12  # more tokens than any request has


def pool_arguments(pool: admission.PoolTerms) -> list[object]:
    server, milli = pool.server, admission.MILLI
    arguments: list[object] = [
        pool.name, pool.servers, server.kv_tokens, server.concurrency, server.tokens_per_second,
        pool.dedicated.rate, pool.depth * milli, pool.dedicated.kv_tokens, pool.dedicated.concurrency,
    ]  # fmt: skip
    for promise in (pool.guaranteed, pool.elastic):
        arguments += [promise.kv_tokens, promise.concurrency, promise.rate, promise.depth * milli]
    return [*arguments, pool.headroom.kv_tokens, pool.headroom.concurrency, int(pool.lend_to_spot)]


def demand_arguments(demand: Demand, channel: str, wait_ms: int) -> list[object]:
    entitlement, buckets, milli = demand.entitlement, admission.buckets(demand.entitlement), admission.MILLI
    base, caps = entitlement.base, entitlement.caps
    return [
        demand.lease, entitlement.name, demand.fingerprint or demand.lease, channel, _order(demand),
        ",".join(demand.pools), entitlement.service_class.tier,
        buckets.base_rate, base.kv_tokens, base.concurrency, buckets.base_depth * milli,
        caps.tokens_per_second, caps.kv_tokens, caps.concurrency, buckets.excess_depth * milli,
        demand.tokens, demand.kv_tokens, wait_ms, entitlement.max_waiting,
    ]  # fmt: skip


def _order(demand: Demand) -> str:
    """Among a tenant's own waiting requests: what sorts first goes first."""
    if demand.entitlement.prioritise is Prioritise.NONE:
        return "n"
    larger = demand.entitlement.prioritise is Prioritise.LARGER
    return f"{'l' if larger else 's'}{_LARGEST - demand.tokens if larger else demand.tokens:012d}"


def decision(names: Sequence[str], entitlement: Entitlement, answer: Sequence[int]) -> Admitted | Refused:
    outcome, number, borrowed, retry_ms, slots_left, slots_reset_ms, tokens_left, tokens_reset_ms = answer
    limits = Limits(
        slots_limit=entitlement.caps.concurrency,
        slots_left=slots_left,
        slots_reset_ms=slots_reset_ms,
        tokens_limit=admission.buckets(entitlement).depth,
        tokens_left=tokens_left,
        tokens_reset_ms=tokens_reset_ms,
    )
    if outcome == 0:
        return Admitted(names[number - 1], limits, borrowed=borrowed == 1)
    return Refused(_REASONS[outcome], retry_ms, limits)


def settlement_arguments(settlement: Settlement, owner: str) -> list[object]:
    """`owner`: the channel of the only worker whose lease it may be; "" for any."""
    seen = settlement.observation
    learned: list[object] = ["", 0, 0, 0, 0, 1, 1, 0, 1, 0]
    if seen is not None:
        learned = [
            seen.category.value,
            seen.text_bytes,
            seen.messages,
            seen.prompt_tokens,
            seen.stream_bytes,
            seen.answers,
            int(seen.limited),
            int(seen.cut),
            repr(seen.bytes_per_token),
            repr(seen.message_tokens),
        ]
    return [
        settlement.lease, owner, settlement.tokens, settlement.prompt_tokens, settlement.completion_tokens, *learned
    ]  # fmt: skip


def expired_lease(lease: str, record: str) -> ExpiredLease:
    entitlement, pool, _channel, _tier, _borrowed, tokens, kv, *_ = record.split()
    return ExpiredLease(lease, entitlement, pool, int(tokens), int(kv))


def is_taken(record: str | None) -> bool:
    """Whether a lease has lost its room: it holds no slot any more. One that is gone is over, or the server lost it."""
    return record is not None and record.split()[7] == "0"


def entitlement_state(
    entitlement: Entitlement,
    record: Sequence[str],
    share: str | None,
    now_ms: int,
    totals: Mapping[str, int],
    waiting: int,
) -> EntitlementState:
    held, kv, slots, _, _, level, excess, at, _, peak_kv, peak_slots, *_ = (int(value) for value in record)
    sizes, elapsed = admission.buckets(entitlement), max(0, now_ms - at)
    set_by_tick = _standing(share)
    base_rate, rate = sizes.base_rate, sizes.base_rate + sizes.excess_rate
    if set_by_tick is not None:  # as admit.lua refills
        rate = max(base_rate, min(rate, set_by_tick[0].tokens_per_second))
        if not entitlement.service_class.promised:
            base_rate = min(base_rate, set_by_tick[1].tokens_per_second)
    balance = min(sizes.base_depth * admission.MILLI, level + base_rate * elapsed)
    balance += min(sizes.excess_depth * admission.MILLI, excess + (rate - base_rate) * elapsed)
    cap, granted, debt, weight = set_by_tick or (None, None, 0.0, 1.0)
    return EntitlementState(
        in_use=Vector(-(-held // entitlement.window_seconds), kv, slots),
        peak=Vector(0, peak_kv, peak_slots),
        balance_tokens=balance // admission.MILLI,
        settled_prompt_tokens=totals.get(f"{entitlement.name} prompt", 0),
        settled_completion_tokens=totals.get(f"{entitlement.name} completion", 0),
        share=granted,
        cap=cap,
        debt=debt,
        weight=weight,
        waiting=waiting,
    )


def _standing(share: str | None) -> tuple[Vector, Vector, float, float] | None:
    """Cap, share, debt and weight, as lua/shares.lua has them."""
    if share is None:
        return None
    weight, cap_rate, cap_kv, cap_slots, rate, kv, slots, debt, *_ = (int(value) for value in share.split())
    return Vector(cap_rate, cap_kv, cap_slots), Vector(rate, kv, slots), debt / 1e6, weight / 1000


def pool_state(record: str | None, share: str | None) -> PoolState:
    held, kv, slots = (int(value) for value in record.split()[:3]) if record else (0, 0, 0)
    counts = [int(value) for value in share.split()] if share else None
    return PoolState(
        Vector(-(-held // DEFAULT_WINDOW_SECONDS), kv, slots),
        servers=counts[0] if counts else None,
        desired=counts[6] if counts else None,
    )
