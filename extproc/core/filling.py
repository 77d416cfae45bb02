"""Progressive filling: weighted max-min fairness by dominant share (DRF: Ghodsi et al., NSDI 2011), and whole numbers.

Everybody's dominant share rises at the speed of his weight. Where a unit runs out, those who need it stop; the others
go on until theirs run out, too. Axes: entitlements, then units (tokens/s, KV tokens, requests).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extproc.core.seen import Column

Rows = NDArray[np.intp]

ALMOST = 1e-7  # what the arithmetic of ten thousand additions may lose
DUE = 1.0  # time constants without service after which a whole request goes before those of others
PASSES = 12


def dominant(amounts: Column, capacity: Column) -> Column:
    """The largest part (n,) of any unit's capacity that each row of (n, 3) amounts is."""
    part: Column = np.divide(amounts, capacity, out=np.zeros_like(amounts), where=capacity > 0)
    largest: Column = part.max(axis=1, initial=0.0)
    return largest


def fill(wanted: Column, weight: Column, held: Column, capacity: Column, room: Column) -> Column:
    """The fraction (n,) that each gets of what it wants (n, 3).

    Args:
      wanted: What each would have with the fraction 1; it is given in these proportions.
      weight: (n,) above 0.
      held: (n,) the dominant share that each holds already: it gets more only when the others have as much.
      capacity: (3,) what dominant shares are parts of.
      room: (3,) what may be given.
    """
    fraction = np.zeros(len(wanted))
    left = np.maximum(room, 0.0)
    needs = wanted > 0
    rows = np.flatnonzero(needs.any(axis=1) & ~(needs & (left <= 0)).any(axis=1))
    while rows.size:
        of_rows = wanted[rows]
        if (of_rows.sum(axis=0) <= left * (1 + ALMOST)).all():
            fraction[rows] = 1.0
            break
        speed = weight[rows] / dominant(of_rows, capacity)
        start = held[rows] / weight[rows]
        level, unit = _first_full(of_rows * speed[:, np.newaxis], start, start + 1.0 / speed, left)
        given = np.clip((level - start) * speed, 0.0, 1.0)
        stops = needs[rows, unit] | (given >= 1.0)
        fraction[rows[stops]] = given[stops]
        left = np.maximum(left - given[stops] @ of_rows[stops], 0.0)
        rows = rows[~stops]
    return fraction


def _first_full(speed: Column, start: Column, stop: Column, room: Column) -> tuple[float, int]:
    """The level at which the first unit runs out, and that unit; all together must want more than there is.

    Each row draws at its speed (n, 3) between two levels: so the sum is linear from one such level to the next.
    """
    levels = np.concatenate((start, stop))
    order = np.argsort(levels)
    levels = levels[order]
    slopes = np.cumsum(np.concatenate((speed, -speed))[order], axis=0)[:-1]
    drawn = np.cumsum(slopes * np.diff(levels)[:, np.newaxis], axis=0)
    best, best_unit = float(levels[-1]), int(np.argmax(drawn[-1] - room))
    for unit in range(len(room)):
        after = int(np.searchsorted(drawn[:, unit], room[unit], side="right"))
        if after < len(drawn) and slopes[after, unit] > 0:
            before = drawn[after - 1, unit] if after else 0.0
            level = float(levels[after] + (room[unit] - before) / slopes[after, unit])
            best, best_unit = min((best, best_unit), (level, unit))
    return best, best_unit


@dataclass(frozen=True, slots=True)
class Precedence:
    """Who goes first when a whole request cannot be divided."""

    waited: Column  # (n,) see debt.waited
    weight: Column  # (n,)
    lot: Column  # (n,) drawn anew every tick, for those who are equal in all else

    def of(self, rows: Rows, first: Column) -> Rows:
        """The rows, those with the most of `first` first."""
        # Rounded: a tie must not be decided by the last binary digit of a sum.
        keys = (self.lot[rows], self.weight[rows], np.round(first, 6))
        order: Rows = np.lexsort(keys)[::-1]
        in_order: Rows = rows[order]
        return in_order


def whole(requests: Column, kv_each: Column, room: Column, precedence: Precedence) -> Column:
    """Fractions of requests (n,) as whole requests with their KV tokens: (n, 2), KV tokens first, as the room (2,).

    The largest remainders are rounded up, each larger by what its tenant has waited. Who may have less than one request
    and has waited longest makes the others give way, also for a request that is larger than what they leave over.
    """
    wanted = np.maximum(requests, np.floor(requests + ALMOST))
    given = np.floor(wanted)
    _make_way(given, wanted, kv_each, room, precedence)
    _round_up(given, wanted, kv_each, room, precedence)
    return np.column_stack((_whole_tokens(given * kv_each, room[0], precedence), given))


def _make_way(given: Column, wanted: Column, kv_each: Column, room: Column, precedence: Precedence) -> None:
    """Gives one request to the first of those who are due; the others give way in proportion, where they must."""
    due = (wanted > ALMOST) & (wanted < 1) & (precedence.waited >= DUE) & (kv_each <= room[0])
    rows = np.flatnonzero(due)
    if not rows.size or room[1] < 1:
        return
    first = precedence.of(rows, precedence.waited[rows])[0]
    left = room - [kv_each[first], 1.0]
    taken = np.array([given @ kv_each, given.sum()])
    if (taken > left).any():
        given *= np.divide(left, taken, out=np.ones(2), where=taken > left).min()
        np.floor(given + ALMOST, out=given)
    given[first] = 1.0


def _round_up(given: Column, wanted: Column, kv_each: Column, room: Column, precedence: Precedence) -> None:
    """One request more to as many as there is room for, in order; each pass goes on behind one that was too large."""
    for _ in range(PASSES):
        left = room - np.array([given @ kv_each, given.sum()])
        rows = np.flatnonzero((wanted - given > ALMOST) & (kv_each <= left[0] + ALMOST))
        if not rows.size or left[1] < 1:
            return
        rows = precedence.of(rows, np.minimum(wanted[rows] - given[rows], 1.0) + precedence.waited[rows])
        fits = (np.arange(1, len(rows) + 1) <= left[1]) & (np.cumsum(kv_each[rows]) <= left[0] + ALMOST)
        given[rows[np.logical_and.accumulate(fits)]] += 1.0


def _whole_tokens(tokens: Column, room: float, precedence: Precedence) -> Column:
    """Rounded up where that does not take more than the room: a request needs its last token, too."""
    result: Column = np.floor(tokens + ALMOST)
    rows = np.flatnonzero(tokens - result > ALMOST)
    spare = int(room - result.sum())
    if spare < len(rows):
        rows = precedence.of(rows, precedence.waited[rows])[: max(0, spare)]
    result[rows] += 1.0
    return result
