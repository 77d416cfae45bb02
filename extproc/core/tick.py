"""One tick of a model's controller: from what is seen to what each entitlement may use until the next; pure."""

from __future__ import annotations

import numpy as np

from extproc.core import debt, weights
from extproc.core.filling import Precedence
from extproc.core.scaling import desired
from extproc.core.seen import Column, PoolShares, Seen, Shares, Standing
from extproc.core.shares import Claims, Division, divide
from extproc.core.terms import Terms, terms
from extproc.core.wants import Wants, wants

__all__ = ["Terms", "terms", "tick"]

RATE_PART = 1 / 3  # of the debts' time constant: rates come in lumps as long as requests; 10 s
GOLDEN = 0.6180339887498949  # rotates through all places evenly, whatever the tick


def tick(of: Terms, seen: Seen) -> Shares:
    """What the model's shared state should be until the next tick."""
    before, at_ms = seen.standing, seen.at_ms
    elapsed = max(0, at_ms - before.at_ms) / 1000 if before.at_ms else 0.0
    asked_rate = _rate(of, elapsed, before.asked_rate, seen.asked - before.asked)
    served_rate = _rate(of, elapsed, before.served_rate, seen.served - before.served)
    wanted = wants(of, seen, asked_rate, served_rate)

    use = np.column_stack((served_rate, seen.in_use.sum(axis=1)))
    short = debt.shortfall(wanted.all.sum(axis=1), use, of.base)
    debts = debt.decayed(before.debt, short.missing, elapsed, of.sharing.debt_seconds)
    debts = np.where(of.elastic, debts, 0.0)
    # Over-use is counted in what was served of late: what is held at one instant would swing with what it decides.
    overuse = np.divide(served_rate, of.base[:, 0], out=np.zeros_like(debts), where=of.base[:, 0] > 0)
    weight = weights.weights(of.sharing, of.weight, overuse, debts)
    precedence = Precedence(debt.waited(debts, short.entitled), weight, (of.lot + at_ms / 1000 * GOLDEN) % 1.0)

    divisions = _divisions(of, seen, wanted, precedence)
    pools, histories = _pools(of, seen, wanted, divisions)
    share = _shares(of, divisions)
    standing = Standing(at_ms, debts, seen.asked, seen.served, asked_rate, served_rate, histories)
    return Shares(weight, share, _caps(of, share, divisions), pools, standing)


def _rate(of: Terms, elapsed: float, previous: Column, growth: Column) -> Column:
    """No more than its cap is remembered: who asks for ever more must not be seen as asking long after."""
    if elapsed <= 0:
        return previous
    rate = debt.smoothed(previous, growth, elapsed, RATE_PART * of.sharing.debt_seconds)
    return np.minimum(rate, of.caps[:, 0])


def _divisions(of: Terms, seen: Seen, wanted: Wants, precedence: Precedence) -> tuple[Division, ...]:
    return tuple(
        divide(
            of,
            live * of.server[number],
            of.headroom[number],
            Claims(wanted.inside[:, number], wanted.above[:, number], precedence),
        )
        for number, live in enumerate(seen.live)
    )


def _pools(
    of: Terms, seen: Seen, wanted: Wants, divisions: tuple[Division, ...]
) -> tuple[tuple[PoolShares, ...], tuple[tuple[tuple[int, int], ...], ...]]:
    shares, histories = [], []
    at_ms, promises = seen.at_ms, of.promises
    for number, (pool, live, division) in enumerate(zip(of.pools, seen.live, divisions, strict=True)):
        demanded = wanted.inside[of.elastic, number].sum(axis=0) + wanted.above[~of.surplus, number].sum(axis=0)
        earlier = seen.standing.wanted[number] if number < len(seen.standing.wanted) else ()
        servers, history = desired(pool, of.scaling, promises, demanded, earlier or ((at_ms, live),), at_ms)
        elastic, surplus = division.given[of.elastic].sum(axis=0), division.given[of.surplus].sum(axis=0)
        shares.append(PoolShares(live, elastic, surplus, servers))
        histories.append(history)
    return tuple(shares), tuple(histories)


def _shares(of: Terms, divisions: tuple[Division, ...]) -> Column:
    share = np.where(of.promised[:, np.newaxis], of.base, 0.0) + _summed(divisions, "given")
    # Where nobody claims the rate, an elastic bucket fills as fast as its base says, whatever its tenant asks just now.
    unasked = np.minimum(of.base[:, 0], share[:, 0] + _summed(divisions, "unclaimed")[0])
    share[:, 0] = np.where(of.elastic, np.maximum(share[:, 0], unasked), share[:, 0])
    return np.minimum(share, of.caps)


def _caps(of: Terms, share: Column, divisions: tuple[Division, ...]) -> Column:
    """Each may have, beside its share, what nobody's demand claims, wherever that is: admission sees what is left."""
    surplus = of.surplus[:, np.newaxis]
    more = np.where(surplus, _summed(divisions, "unclaimed_surplus"), _summed(divisions, "unclaimed"))
    more[of.preemptible] = _summed(divisions, "unclaimed_lent")
    caps: Column = np.clip(share + more, of.base, of.caps)
    # Others' claims keep these in their place at admission; a cap would only lag behind the room that becomes free.
    caps[of.surplus, 1:] = of.caps[of.surplus, 1:]
    return caps


def _summed(divisions: tuple[Division, ...], kind: str) -> Column:
    total: Column = np.sum([getattr(division, kind) for division in divisions], axis=0)
    return total
