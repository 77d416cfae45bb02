"""What the controller sees of a model and what it sets, in columns: thousands of entitlements are weighed in one tick.

Row i is the i-th of the model's entitlements in the order of the policy, column p its p-th pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the last tick left for the next, whoever leads then."""

    at_ms: int  # 0: there was none
    debt: Column  # (entitlements,) from -1 to 1
    asked: Column  # (entitlements,) the `Seen.asked` of that tick
    served: Column  # (entitlements,)
    asked_rate: Column  # (entitlements,) tokens/s, smoothed
    served_rate: Column  # (entitlements,) tokens/s, smoothed
    wanted: tuple[tuple[tuple[int, int], ...], ...]  # by pool: (ms, servers) that may still hold a scale-down back


@dataclass(frozen=True, slots=True)
class Seen:
    """The shared state of one model at one instant."""

    at_ms: int
    in_use: Column  # (entitlements, pools, 2) KV tokens and requests that leases hold
    unmet: Column  # (entitlements, pools, 2) the same of distinct requests that wait or were lately refused
    asked: Column  # (entitlements,) tokens ever asked for, each distinct request once, corrected at settlement
    served: Column  # (entitlements,) tokens ever granted, corrected at settlement
    standing: Standing
    live: tuple[int, ...]  # servers of each pool that answer


@dataclass(frozen=True, slots=True)
class PoolShares:
    live: int  # servers the capacity stands for
    elastic: Column  # (3,) tokens/s, KV tokens, requests: sum of the shares of elastic entitlements in this pool
    surplus: Column  # (3,) the same of spot and preemptible
    desired: int  # servers this pool should have


@dataclass(frozen=True, slots=True)
class Shares:
    """What one tick sets. Units in the last axis: tokens/s, KV tokens, requests; the last two are whole numbers."""

    weight: Column  # (entitlements,) above 0
    share: Column  # (entitlements, 3) what the entitlement may use even while everybody wants more
    cap: Column  # (entitlements, 3) what it may use at most until the next tick; from base to the configured burst
    pools: tuple[PoolShares, ...]
    standing: Standing
