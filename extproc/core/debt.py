"""What an entitlement has lately been short of, against its base: debt; and the smoothed rates it is taken from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from extproc.core.seen import Column

FULLY_SHORT = 1.0 - 1e-6  # as precisely as debts are kept between ticks


@dataclass(frozen=True, slots=True)
class Shortfall:
    """In units of the base."""

    entitled: Column  # (n,) from 0 to 1: what is in demand, the base at most
    missing: Column  # (n,) from -1 to 1: of that, what was not served; below 0 where more than the base was


def smoothed(previous: Column, growth: Column, elapsed_seconds: float, time_constant: float) -> Column:
    """The moving average of a rate, from what its counter grew by. Settlements correct counters down, too."""
    if elapsed_seconds <= 0:
        return previous
    kept = math.exp(-elapsed_seconds / time_constant)
    average: Column = np.maximum(0.0, kept * previous + (1.0 - kept) * growth / elapsed_seconds)
    return average


def shortfall(demand: Column, use: Column, base: Column) -> Shortfall:
    """Each (n, 3). Demand and service count in that unit of which they take the largest part of the base.

    So who asks for more than his base, or has used it up in one unit, is short of nothing: retries and floods earn no
    debt. An average rate comes in lumps, whole requests at a time: above the base it is left to the weight's over-use.
    """
    of_base = (np.divide(column, base, out=np.zeros_like(base), where=base > 0) for column in (demand, use))
    wanted, served = of_base
    entitled = np.minimum(1.0, wanted.max(axis=1))
    served[:, 0] = np.minimum(1.0, served[:, 0])
    missing = np.where(base.any(axis=1), entitled - served.max(axis=1), 0.0)
    return Shortfall(entitled, np.clip(missing, -1.0, 1.0))


def decayed(previous: Column, missing: Column, elapsed_seconds: float, time_constant: float) -> Column:
    """The debts after this tick: the moving average of what was missing, from -1 to 1."""
    kept = math.exp(-max(0.0, elapsed_seconds) / time_constant)
    return np.clip(kept * previous + (1.0 - kept) * missing, -1.0, 1.0)


def waited(debt: Column, entitled: Column) -> Column:
    """For how many time constants the entitlement would have been without any service to owe it so much.

    Who is not served at all gains one for each time constant, whatever its base, its demand and its weight; who is
    served in part stays below a bound. So one who has nothing is ahead of all others in bounded time, also where they
    have the larger remainder, which counts one at most: the longest gap without service, in all pools together, is
    T (1 + ln((1 + 1/e) E / (1 - exp(-h/T)))) + h (n/c + 2), where T is the time constant, e the part of its base that
    it demands, E the most requests that another's base holds, h how long a request runs, n how many compete and c the
    requests that run at a time. It holds while the first term is below 13.8 T, the precision of a debt.
    """
    part = np.divide(np.maximum(0.0, debt), entitled, out=np.zeros_like(debt), where=entitled > 0)
    return -np.log1p(-np.minimum(part, FULLY_SHORT))
