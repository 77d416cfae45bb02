"""How much of the bases that are never refused a set of pools can honour, and how many servers would honour all.

Every dedicated base is kept free in every pool: nobody knows where its requests will come, and they must find room at
once. So what is left for guaranteed bases is each pool's capacity beside all dedicated ones. Rates are not kept pool
by pool: requests inside a base never wait for a pool's tokens, only the servers' own speed counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from extproc.core.policy import Pool, ServiceClass

KEPT_UNITS = ("kv_tokens", "concurrency")  # kept free in every pool


@dataclass(frozen=True, slots=True)
class Promised:
    """The bases of one model in one unit."""

    unit: str
    dedicated: int
    guaranteed: int

    @classmethod
    def sum_of(cls, unit: str, bases: Iterable[tuple[ServiceClass, int]]) -> Self:
        """Of each entitlement its class and its base in this unit; other classes than the two count nothing."""
        sums = dict.fromkeys(ServiceClass, 0)
        for service_class, base in bases:
            sums[service_class] += base
        return cls(unit, sums[ServiceClass.DEDICATED], sums[ServiceClass.GUARANTEED])

    @property
    def total(self) -> int:
        return self.dedicated + self.guaranteed

    @property
    def _kept(self) -> int:
        return self.dedicated if self.guaranteed and self.unit in KEPT_UNITS else 0

    def honoured_by(self, pools: Sequence[Pool]) -> int:
        """The most that may be promised where so much is dedicated: more could not be had in any mix of requests."""
        capacities: list[int] = [getattr(pool.capacity, self.unit) for pool in pools]
        return min(sum(capacities), self._kept + sum(max(0, capacity - self._kept) for capacity in capacities))

    def servers_for(self, pool: Pool, pools: Sequence[Pool]) -> int:
        """How many servers this pool would need for all of it, while the others stay as they are."""
        others: list[int] = [getattr(other.capacity, self.unit) for other in pools if other is not pool]
        capacity = max(0, self.total - sum(others))
        beside_kept = sum(max(0, other - self._kept) for other in others)
        if beside_kept < self.total - self._kept:
            capacity = max(capacity, self.total - beside_kept)
        server: int = getattr(pool.server_capacity, self.unit)
        return -(-capacity // server)
