"""Settlements: what Envoy says of an ended request becomes a charge, once, however often and wherever it is said."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from dataclasses import replace

from extproc.beliefs import LearnedBeliefs
from extproc.core.charge import Charge, Ended, Ending, Entry, Running, Source, Unjudged, charge, cut_short, misrouted
from extproc.core.estimate import Beliefs
from extproc.core.lessons import Observation
from extproc.core.observed import Observer, Settled
from extproc.core.policy import Model, Policy
from extproc.core.ticket import Ticket
from extproc.ledger import ExpiredLease, Ledger, LedgerUnavailable, Settlement

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
GIVE_UP_SECONDS = 600.0
VERDICT_SECONDS = 1.0  # longer than a verdict takes, however slow Redis is
MOST_PENDING = 100_000  # endings held while the ledger is away; beyond, leases expire by themselves
SWEEP_BATCH = 500

log = logging.getLogger(__name__)


class Settlements:
    """Settles from tasks of its own: an ending outlives the stream that brought it."""

    def __init__(self, policy: Policy, ledger: Ledger, beliefs: LearnedBeliefs, observer: Observer) -> None:
        self._models = {model.name: model for model in policy.models}
        self._ledger = ledger
        self._beliefs = beliefs
        self._observer = observer
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, entries: Iterable[Entry]) -> None:
        """Returns at once. A ticket of a model that is no longer configured expires at its deadline."""
        running: dict[str, list[str]] = {}
        for entry in entries:
            match entry:
                case Ended(ticket, ending) if ticket.model in self._models:
                    self._start(self._settle(ticket, ending))
                case Running(ticket) if ticket.model in self._models:
                    running.setdefault(ticket.model, []).append(ticket.lease)
                case Unjudged(lease):
                    # Its verdict may still be under way: hence the pause. The entry does not say the model.
                    self._start(self._release_unused(lease, tuple(self._models), VERDICT_SECONDS))
        for model, leases in running.items():
            self._start(self._renew(model, leases))

    def release(self, ticket: Ticket) -> None:
        """The verdict could not be sent: nobody will use its lease. Returns at once."""
        self._start(self._release_unused(ticket.lease, (ticket.model,), 0.0))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        if len(self._tasks) >= MOST_PENDING:
            work.close()
            self._observer.ledger_failed("pending")
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> int:
        """Waits for what was accepted; how many are left when the time is over (their leases expire)."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = len(self._tasks)
        for task in self._tasks:
            task.cancel()
        return left

    async def sweep(self, model: str) -> int:
        """Charges leases past their deadline in full, and returns how many. Raises LedgerUnavailable."""
        expired = await self._ledger.expired(model, SWEEP_BATCH)
        for lease in expired:
            settlement = Settlement(lease.lease, model, lease.tokens, 0, lease.tokens)
            if await self._ledger.settle(settlement):
                self._observer.settled(_expired_fact(model, lease))
        return len(expired)

    async def _settle(self, ticket: Ticket, ending: Ending) -> None:
        ended_ns = time.time_ns()  # the settlement may come much later
        beliefs = await self._beliefs.of(ticket.model, ticket.entitlement, ticket.category)
        model = self._models[ticket.model]
        due = charge(ticket, ending, model.cost, beliefs.stream_bytes_per_token)
        cut = ending.attempts == 1 and cut_short(ticket, due, _length(model, ticket.pool))  # else another pool's server
        settlement = Settlement(
            ticket.lease,
            ticket.model,
            due.tokens,
            due.prompt_tokens,
            due.completion_tokens,
            _lesson(ticket, ending, due, beliefs, cut=cut),
        )
        if await self._settled(settlement):
            truncated = cut and ticket.pool != model.pools[-1].name
            self._observer.settled(_fact(ticket, ending, due, ended_ns, truncated=truncated))

    async def _renew(self, model: str, leases: list[str]) -> None:
        try:
            await self._ledger.renew(model, leases)
        except LedgerUnavailable as fault:
            log.debug("%d leases of %s were not renewed: %s", len(leases), model, fault)  # Envoy will say so again

    async def _release_unused(self, lease: str, models: Iterable[str], after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        for model in models:
            if await self._settled(Settlement(lease, model, 0, 0, 0)):
                self._observer.settled(_blank_fact(model, Source.UNUSED))
                return

    async def _settled(self, settlement: Settlement) -> bool:
        """Tries for as long as a usual outage lasts; then the lease is nobody's to settle but the sweep's."""
        give_up, delay = time.monotonic() + GIVE_UP_SECONDS, FIRST_RETRY_SECONDS
        while True:
            try:
                return await self._ledger.settle(settlement)
            except LedgerUnavailable as fault:
                if time.monotonic() > give_up:
                    log.warning("lease %s was not settled: %s", settlement.lease, fault)
                    return False
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY_SECONDS)


def _length(model: Model, pool_name: str) -> int:
    """The longest sequence of a pool; of one that the model has no longer, of any."""
    return next((pool.max_model_len for pool in model.pools if pool.name == pool_name), model.max_model_len)


def _lesson(ticket: Ticket, ending: Ending, due: Charge, beliefs: Beliefs, *, cut: bool) -> Observation | None:
    """Only what the server counted teaches."""
    if due.source is not Source.USAGE:
        return None
    return Observation(
        category=ticket.category,
        text_bytes=ticket.text_bytes,
        messages=ticket.messages,
        prompt_tokens=max(0, due.prompt_tokens - ticket.known_tokens),
        stream_bytes=ending.response_bytes if ticket.stream else 0,
        answers=max(1, ticket.answers),
        limited=ticket.asked_tokens >= 0,
        cut=cut,
        bytes_per_token=beliefs.ratio.mean,
        message_tokens=beliefs.message_tokens,
    )


def _fact(ticket: Ticket, ending: Ending, due: Charge, ended_ns: int, *, truncated: bool) -> Settled:
    return Settled(
        model=ticket.model,
        entitlement=ticket.entitlement,
        pool=ticket.pool,
        category=ticket.category.value,
        source=due.source.value,
        prompt_tokens=due.prompt_tokens,
        completion_tokens=due.completion_tokens,
        prompt_estimate=ticket.prompt_estimate,
        reserved_tokens=ticket.reserved_tokens,
        status=ending.status,
        ttft_seconds=ending.ttft_seconds,
        duration_seconds=ending.duration_seconds,
        at_ns=ended_ns,
        misrouted=misrouted(ticket, ending),
        truncated=truncated,
        traceparent=ticket.traceparent,
    )


def _expired_fact(model: str, lease: ExpiredLease) -> Settled:
    return replace(
        _blank_fact(model, Source.EXPIRED),
        entitlement=lease.entitlement,
        pool=lease.pool,
        completion_tokens=lease.tokens,  # nobody knows how they were used
        reserved_tokens=lease.tokens,
    )


def _blank_fact(model: str, source: Source) -> Settled:
    """A settlement without a ticket."""
    return Settled(
        model=model,
        entitlement="",
        pool="",
        category="",
        source=source.value,
        prompt_tokens=0,
        completion_tokens=0,
        prompt_estimate=0,
        reserved_tokens=0,
        status=0,
        ttft_seconds=None,
        duration_seconds=0.0,
        at_ns=time.time_ns(),
    )
