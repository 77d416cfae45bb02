"""What each entitlement wants of each pool, as far as it may have it: from what it holds, waits for and asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extproc.core.seen import Column, Seen
from extproc.core.terms import Terms


@dataclass(frozen=True, slots=True)
class Wants:
    """Axes: entitlements, pools, units (tokens/s, KV tokens, requests)."""

    inside: Column  # of the base
    above: Column  # up to the configured burst

    @property
    def all(self) -> Column:
        return self.inside + self.above


def wants(terms: Terms, seen: Seen, asked_rate: Column, served_rate: Column) -> Wants:
    """Its base is split between pools in proportion to what it wants of each.

    An entitlement that neither holds nor waits for anything wants nothing: no slot is kept idle for it. Who comes now
    and then is let in where there is room; where there is none, its refused request counts for some seconds, and the
    next tick sets a share aside for when it comes again.
    """
    held = np.where(seen.in_use[..., 1:] > 0, seen.in_use, 0.0)
    occupancy = held + _unmet(terms, seen, held)
    total = occupancy.sum(axis=1)
    rate = _rate(terms, held.sum(axis=1), total, asked_rate, served_rate)
    inside = _at_most(terms.base[:, 1:], total)[:, np.newaxis, np.newaxis] * occupancy
    parts = _parts(terms, occupancy, total)
    base_rate = np.minimum(rate, terms.base[:, 0])
    return Wants(
        inside=np.dstack((base_rate[:, np.newaxis] * parts, inside)),
        above=np.dstack(((rate - base_rate)[:, np.newaxis] * parts, occupancy - inside)),
    )


def _at_most(limits: Column, amounts: Column) -> Column:
    """The fraction (n,) of amounts (n, 2) that keeps within the limits in both units: requests are not divided."""
    limits = np.maximum(limits, 0.0)  # below 0 where the configured burst is less than what is held
    ratio = np.divide(limits, amounts, out=np.ones_like(amounts), where=amounts > limits)
    fraction: Column = ratio.min(axis=1)
    return fraction


def _unmet(terms: Terms, seen: Seen, held: Column) -> Column:
    """Of the requests that wait or were refused as many as the burst leaves room for, in whole requests."""
    unmet = np.where(seen.unmet[..., 1:] > 0, seen.unmet, 0.0)
    total = unmet.sum(axis=1)
    part = _at_most(terms.caps[:, 1:] - held.sum(axis=1), total)
    requests = np.floor(part[:, np.newaxis] * unmet[..., 1] + 1e-9)
    rest = np.floor(part * total[:, 1] + 1e-9) - requests.sum(axis=1)
    requests[np.arange(len(requests)), unmet[..., 1].argmax(axis=1)] += rest
    each = np.divide(unmet[..., 0], unmet[..., 1], out=np.zeros_like(requests), where=unmet[..., 1] > 0)
    return np.stack((requests * each, requests), axis=-1)


def _rate(terms: Terms, held: Column, total: Column, asked_rate: Column, served_rate: Column) -> Column:
    """What it asks for; or what it would need with all its requests running, where those that wait cannot ask again.

    That guess is never let grow beyond the part of all capacity that its occupancy is: it must not decide by itself.
    """
    growth = np.divide(total[:, 0], held[:, 0], out=np.zeros(len(total)), where=held[:, 0] > 0)
    occupied = np.divide(total, terms.capacity[1:], out=np.zeros_like(total), where=terms.capacity[1:] > 0)
    guess = np.minimum(served_rate * growth, occupied.max(axis=1, initial=0.0) * terms.capacity[0])
    rate: Column = np.minimum(np.maximum(asked_rate, guess), terms.caps[:, 0])
    return rate


def _parts(terms: Terms, occupancy: Column, total: Column) -> Column:
    """How a rate (n, pools) divides among the pools: as the KV tokens do; where there are none, as the capacity."""
    by_capacity = terms.server[:, 0] * [len(pool.endpoints) for pool in terms.pools]
    by_capacity = by_capacity / max(1.0, by_capacity.sum())
    kv = total[:, :1]
    return np.where(
        kv > 0, np.divide(occupancy[..., 0], kv, out=np.zeros(occupancy.shape[:2]), where=kv > 0), by_capacity
    )
