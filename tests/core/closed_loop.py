"""A pool in virtual time around the pure tick: who may start when, as admission would have it with these shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from extproc.core.policy import Entitlement, Model
from extproc.core.seen import Column, Seen, Shares, Standing
from extproc.core.tick import terms, tick

Wanting = Callable[[int, int], int]  # (entitlement, tick) -> how many requests it would like to have at a time


def nothing_before(entitlements: int, pools: int = 1) -> Standing:
    none = np.zeros(entitlements)
    return Standing(0, none, none, none, none, none, ((),) * pools)


class Running(NamedTuple):
    ends: int
    who: int


@dataclass
class ClosedLoop:
    """One pool. Every request holds its slot for `hold` ticks, and takes `tokens` KV tokens and as many of rate."""

    model: Model
    entitlements: Sequence[Entitlement]
    wanting: Wanting
    live: Callable[[int], int] = lambda _: 1
    hold: Sequence[int] = (5,)
    tokens: Sequence[int] = (75,)
    tick_ms: int = 1000
    now: int = 0
    running: list[Running] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)
    held: list[Column] = field(default_factory=list)  # by tick: requests that run, of each

    def __post_init__(self) -> None:
        self.count = len(self.entitlements)
        self.terms = terms(self.model, self.entitlements)
        self.asked = np.zeros(self.count)
        self.served = np.zeros(self.count)
        self.counted = np.zeros(self.count)  # waiting requests that `asked` has already
        self.standing = nothing_before(self.count)
        self.each = np.array([self.tokens[i % len(self.tokens)] for i in range(self.count)], dtype=np.float64)

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.step()

    def slots(self) -> Column:
        return np.bincount([one.who for one in self.running], minlength=self.count).astype(np.float64)

    def step(self) -> None:
        """Requests end and others take their place under the last shares; then the tick, and what it has changed."""
        self.running = [one for one in self.running if one.ends > self.now]
        live = self.live(self.now)
        wanted = np.array([self.wanting(i, self.now) for i in range(self.count)], dtype=np.float64)
        self.asked += np.maximum(0.0, wanted - self.slots() - self.counted) * self.each
        if self.shares:
            self._start(wanted, live)
        held = self.slots()
        waiting = np.maximum(0.0, wanted - held)
        seen = Seen(
            at_ms=1_000_000 + self.now * self.tick_ms,
            in_use=np.column_stack((held * self.each, held))[:, np.newaxis],
            unmet=np.column_stack((waiting * self.each, waiting))[:, np.newaxis],
            asked=self.asked.copy(),
            served=self.served.copy(),
            standing=self.standing,
            live=(live,),
        )
        self.shares.append(tick(self.terms, seen))
        self.standing = self.shares[-1].standing
        self._start(wanted, live)
        self.counted = np.maximum(0.0, wanted - self.slots())
        self.held.append(self.slots())
        self.now += 1

    def _start(self, wanted: Column, live: int) -> None:
        shares, held = self.shares[-1], self.slots()
        room = live * self.terms.server[0, 1:] - [held @ self.each, held.sum()]
        order = np.argsort(-shares.weight, kind="stable")
        for inside in (True, False):
            for who in order:
                while held[who] < wanted[who] and self._may(who, inside, held, room):
                    held[who] += 1
                    room = room - [self.each[who], 1]
                    self.served[who] += self.each[who]
                    self.running.append(Running(self.now + self.hold[who % len(self.hold)], int(who)))

    def _may(self, who: int, inside: bool, held: Column, room: Column) -> bool:
        shares = self.shares[-1]
        limit = shares.share if inside else shares.cap
        if held[who] + 1 > limit[who, 2] or (held[who] + 1) * self.each[who] > limit[who, 1]:
            return False
        kept = np.zeros(2)
        if not inside:  # beside what the shares of the others may still claim
            unclaimed = np.maximum(0.0, shares.share[:, 2] - held)
            kept = np.array([unclaimed @ self.each, unclaimed.sum()])
        return bool((room - kept >= [self.each[who], 1]).all())


def longest_gaps(loop: ClosedLoop) -> Column:
    """For how many ticks each had nothing running at the longest."""
    idle = np.array(loop.held) == 0
    longest, current = np.zeros(loop.count), np.zeros(loop.count)
    for row in idle:
        current = np.where(row, current + 1, 0)
        longest = np.maximum(longest, current)
    return longest
