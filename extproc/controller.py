"""The controller: once a tick, whoever leads a model works out its shares from what is seen of it and sets them."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Protocol

from extproc.core.settings import Settings
from extproc.core.tick import terms, tick
from extproc.ledger import LedgerUnavailable, Stewardship

# A leader that is gone is replaced within three ticks: its term runs out after two, and the others ask once a tick.
TERM_TICKS = 2

log = logging.getLogger(__name__)


class Servers(Protocol):
    """What answers."""

    def live(self, model: str) -> tuple[int, ...]:
        """Servers of each pool, in the order of the policy."""


class Controller:
    """Takes part in the lead of every model. `holder` must name this process and no other, now or later."""

    def __init__(self, settings: Settings, stewardship: Stewardship, servers: Servers, holder: str) -> None:
        policy = settings.policy
        self._terms = {model.name: terms(model, policy.entitlements_of(model.name)) for model in policy.models}
        self._tick_ms = settings.tick_ms
        self._stewardship = stewardship
        self._servers = servers
        self._holder = holder
        self._led: dict[str, int] = {}  # term by model
        self._failing: set[str] = set()  # models

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(*(self._steer(model) for model in self._terms))

    async def _steer(self, model: str) -> None:
        clock, seconds = asyncio.get_running_loop(), self._tick_ms / 1000
        due = clock.time()
        while True:
            await self._attempt(model)
            due = next_due(due, clock.time(), seconds)
            await asyncio.sleep(due - clock.time())

    async def _attempt(self, model: str) -> None:
        try:
            trouble = await self.tick_once(model)
        except LedgerUnavailable as fault:
            trouble = str(fault)
        except Exception:  # the outermost edge: whatever is wrong with this tick, the next is tried
            trouble = "the tick failed"
            if model not in self._failing:
                log.exception("a tick of %s failed", model)
        self._tell(model, trouble)

    async def tick_once(self, model: str) -> str | None:
        """What kept the shares from being set; None: nothing did, or another leads. Raises LedgerUnavailable."""
        term = await self._stewardship.lead(model, self._holder, TERM_TICKS * self._tick_ms)
        self._note(model, term)
        if not term:
            return None
        seen = await self._stewardship.seen(model, self._servers.live(model))
        shares = tick(self._terms[model], seen)
        taken = await self._stewardship.set_shares(model, term, shares)
        return None if taken else "the term was over before they could be set"

    def _note(self, model: str, term: int) -> None:
        before = self._led.get(model, 0)
        if term == before:
            return
        self._led[model] = term
        if term:
            log.info("leads %s, term %d", model, term)
        else:
            log.info("leads %s no longer", model)

    def _tell(self, model: str, trouble: str | None) -> None:
        """Once when it begins, once when it ends."""
        if trouble is not None and model not in self._failing:
            self._failing.add(model)
            log.warning("the shares of %s stay as they are: %s", model, trouble)
        elif trouble is None and model in self._failing:
            self._failing.remove(model)
            log.info("the shares of %s are set again", model)


def next_due(due: float, now: float, seconds: float) -> float:
    """On a steady schedule: what a tick takes does not put the next one off, and missed ones are not made up."""
    return due + seconds * max(1, math.ceil((now - due) / seconds))
