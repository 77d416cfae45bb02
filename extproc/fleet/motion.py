"""All servers of a fleet in virtual time: who is where, and what happens next."""

from __future__ import annotations

import heapq
from collections.abc import Sequence as Some

from extproc.fleet.fleet import Choice, Fleet, Pool
from extproc.sim.batch import NEVER, Batch, Sequence, Use


class Motion:
    """Give it requests in the order of time, each after `advance` to its arrival."""

    def __init__(self, fleet: Fleet) -> None:
        self._turns = fleet.choice is Choice.TURNS
        self._batches: list[Batch] = []
        self._home: list[tuple[int, int]] = []  # of each batch: pool, and its number within
        self._first: list[int] = []  # of each pool: number of its first batch
        self._counts: list[list[int]] = []  # of each pool: requests of each of its servers
        self._last: list[int] = []  # of each pool: the server that was chosen last
        self._due: list[tuple[float, int]] = []  # when a batch is next to proceed; what no longer holds is left in
        for pool in fleet.pools:
            self._add(pool)

    def _add(self, pool: Pool) -> None:
        number = len(self._first)
        self._first.append(len(self._batches))
        self._counts.append([0] * pool.servers)
        self._last.append(-1)
        self._home.extend((number, server) for server in range(pool.servers))
        self._batches.extend(Batch(pool.slots, pool.timing) for _ in range(pool.servers))

    def advance(self, until_ms: float) -> Some[Sequence]:
        """Everything before that moment; who finished, in the order of time."""
        due, batches = self._due, self._batches
        ended: list[Sequence] = []
        while due and due[0][0] < until_ms:
            at_ms, number = heapq.heappop(due)
            batch = batches[number]
            if batch.next_ms != at_ms:
                continue
            for sequence in batch.proceed():
                pool, server = self._home[number]
                self._counts[pool][server] -= 1
                ended.append(sequence)
            if batch.next_ms < NEVER:
                heapq.heappush(due, (batch.next_ms, number))
        return ended

    def send(self, pool: int, sequence: Sequence, at_ms: float) -> None:
        counts = self._counts[pool]
        server = self._choose(pool, counts)
        counts[server] += 1
        number = self._first[pool] + server
        batch = self._batches[number]
        before_ms = batch.next_ms
        batch.arrive(sequence, at_ms)
        if batch.next_ms != before_ms:
            heapq.heappush(self._due, (batch.next_ms, number))

    def use(self, pool: int) -> Use:
        """Of all its servers."""
        total = Use()
        for batch, (home, _) in zip(self._batches, self._home, strict=True):
            if home == pool:
                total.add(batch.use)
        return total

    def _choose(self, pool: int, counts: list[int]) -> int:
        """Of several with the fewest, the next in turn: as even as Envoy's random choice, and repeatable."""
        after = (self._last[pool] + 1) % len(counts)
        if not self._turns:
            fewest = min(counts)
            try:
                after = counts.index(fewest, after)
            except ValueError:
                after = counts.index(fewest)
        self._last[pool] = after
        return after
