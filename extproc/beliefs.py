"""What has been learned, kept at hand: read once when first needed, then refreshed in the background."""

from __future__ import annotations

import asyncio
import logging

from extproc.core.estimate import Beliefs, unlearned
from extproc.core.facts import Category
from extproc.ledger import Ledger, LedgerUnavailable

REFRESH_SECONDS = 1.0
MOST_KEPT = 10_000  # (model, entitlement, category) in use within one refresh of each other

log = logging.getLogger(__name__)

Key = tuple[str, str, Category]


class LearnedBeliefs:
    """Beliefs by (model, entitlement, category). Old ones serve while the ledger is away, priors before that."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[Key, Beliefs] = {}
        self._used: set[Key] = set()

    async def of(self, model: str, entitlement: str, category: Category) -> Beliefs:
        key = (model, entitlement, category)
        self._used.add(key)
        known = self._known.get(key)
        if known is not None:
            return known
        try:
            [fresh] = await self._ledger.beliefs(model, [(entitlement, category)])
        except LedgerUnavailable:
            fresh = unlearned(category)  # kept: the next request need not wait as well, and the refresh puts it right
        self._known[key] = fresh
        return fresh

    async def refresh_forever(self) -> None:
        """Keeps what was used since the last refresh, drops the rest."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            used, self._used = self._used, set()
            if len(self._known) > MOST_KEPT:
                self._known = {key: beliefs for key, beliefs in self._known.items() if key in used}
            for model in {key[0] for key in used}:
                await self._refresh(model, [key for key in used if key[0] == model])

    async def _refresh(self, model: str, keys: list[Key]) -> None:
        try:
            fresh = await self._ledger.beliefs(model, [key[1:] for key in keys])
        except LedgerUnavailable as fault:
            log.debug("beliefs of %s stay as they are: %s", model, fault)
            return
        self._known.update(zip(keys, fresh, strict=True))
