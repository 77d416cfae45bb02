"""How many servers the pools of a fleet need.

Together they keep the target: of all requests 99 % have their first token by then. Besides, each pool may hold up only
some share of its own requests for longer than the target and their own reading: else a hundredth of all that is long
could be left to wait for ever. And no server is busier than the utilisation allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

from extproc.planning.forms import servers_for
from extproc.planning.latency import LATE, Latency, Load
from extproc.planning.lengths import Lengths
from extproc.planning.server import Server, Work

COARSE = 32  # a pool that must grow does so by this part of itself at a time
IDLE = 50  # times the servers that the load needs: a target that takes more is out of reach


class Infeasible(Exception):  # noqa: N818 - it names the state of affairs
    """Raised where no number of servers keeps the target. The message says by how much, and what could be changed."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a fleet is for."""

    lengths: Lengths
    server: Server
    max_model_len: int
    requests_per_second: float
    ttft_p99_ms: float
    utilisation: float  # the most, of what a saturated server does
    held_up: float  # the largest share of any pool's requests


@dataclass(frozen=True, slots=True)
class Pool:
    """The servers for requests of more than `low` and at most `high` tokens."""

    low: int
    high: int
    share: float  # of all requests
    requests_per_second: float
    work: Work
    latency: Latency
    servers: int

    @property
    def load(self) -> Load:
        return self.latency.at(self.requests_per_second, self.servers)

    @property
    def one_does(self) -> float:
        """Requests a second of a saturated server."""
        return self.latency.most_per_second

    @property
    def tokens_per_request(self) -> float:
        return self.work.lengths.mean(self.work.lengths.total_tokens)


@dataclass(frozen=True, slots=True)
class Fleet:
    pools: tuple[Pool, ...]  # by length; those that nobody would use are left out

    @property
    def servers(self) -> int:
        return sum(pool.servers for pool in self.pools)

    @property
    def fluid_servers(self) -> float:
        """Without rounding, and without room for waiting."""
        return sum(pool.requests_per_second / pool.one_does for pool in self.pools)

    @property
    def thresholds(self) -> tuple[int, ...]:
        return tuple(pool.high for pool in self.pools[:-1])


class Sizer:
    """Fleets for one need. Pools are remembered: many fleets share some of theirs."""

    def __init__(self, need: Need) -> None:
        self.need = need
        self._empty_pool = cache(self._make_pool)

    @cached_property
    def homogeneous(self) -> Fleet:
        """Raises Infeasible."""
        return self.fleet(())

    def fleet(self, thresholds: tuple[int, ...]) -> Fleet:
        """The fewest servers, as far as adding where it helps most and then taking away again finds them.

        Raises Infeasible.
        """
        edges = (0, *thresholds, self.need.max_model_len)
        found = [self._empty_pool(low, high) for low, high in itertools.pairwise(edges)]
        pools = [pool for pool in found if pool is not None]
        self._check(pools)
        growing = [_Growing(pool, self.need) for pool in pools]
        while sum(one.late() for one in growing) > LATE:
            max(growing, key=_Growing.gain).grow()
        for one in sorted(growing, key=lambda one: -one.servers):
            one.shrink(LATE - sum(other.late() for other in growing if other is not one))
        return Fleet(tuple(one.sized() for one in growing))

    def _make_pool(self, low: int, high: int) -> Pool | None:
        need = self.need
        lengths = need.lengths.between(low, high)
        if lengths is None:
            return None
        share = need.lengths.share_between(low, high)
        work = Work(need.server, high, lengths)
        return Pool(low, high, share, need.requests_per_second * share, work, Latency(work), 0)

    def _check(self, pools: list[Pool]) -> None:
        late = sum(pool.share * pool.latency.alone.late(self.need.ttft_p99_ms) for pool in pools)
        if late > LATE:
            raise Infeasible(
                f"no number of servers keeps a P99 of {self.need.ttft_p99_ms:,.0f} ms: {late:.1%} of the requests take"
                f" longer even alone on a server, only to read their prompts"
            )


class _Growing:
    """A pool while its number of servers is searched."""

    def __init__(self, pool: Pool, need: Need) -> None:
        self._pool = pool
        self._target_ms = need.ttft_p99_ms
        self._held_up = need.held_up
        self._late = cache(self._late_share)
        self._needed = max(1, servers_for(pool.requests_per_second, need.utilisation * pool.one_does))
        self.servers = self._fewest = self._needed
        while not self._holds_up_few(self.servers):
            self.grow()
        self.servers = self._fewest = _least(self._fewest, self.servers, self._holds_up_few)

    @property
    def _step(self) -> int:
        return max(1, self.servers // COARSE)

    def _late_share(self, servers: int) -> float:
        return self._pool.share * self._load(servers).late(self._target_ms)

    def _holds_up_few(self, servers: int) -> bool:
        return self._load(servers).held_up(self._target_ms) <= self._held_up

    def _load(self, servers: int) -> Load:
        return self._pool.latency.at(self._pool.requests_per_second, servers)

    def late(self) -> float:
        """Share of all requests of the fleet that are of this pool and late."""
        return self._late(self.servers)

    def gain(self) -> float:
        """How much fewer are late for each server that is added."""
        return (self.late() - self._late(self.servers + self._step)) / self._step

    def grow(self) -> None:
        self.servers += self._step
        if self.servers > IDLE * self._needed:
            raise Infeasible(
                f"a P99 of {self._target_ms:,.0f} ms is out of reach: reading alone takes nearly as long, and others'"
                f" tokens come on top, even with {self.servers:,} servers, {IDLE} times as many as the load needs"
            )

    def shrink(self, late: float) -> None:
        """To the fewest servers with which no more than this share is late."""
        self.servers = _least(self._fewest, self.servers, lambda servers: self._late(servers) <= late)

    def sized(self) -> Pool:
        pool = self._pool
        return Pool(pool.low, pool.high, pool.share, pool.requests_per_second, pool.work, pool.latency, self.servers)


def _least(low: int, high: int, is_enough: Callable[[int], bool]) -> int:
    """The least that is enough, where `high` is, and more is never worse."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return high
