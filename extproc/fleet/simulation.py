"""A trace through a fleet: an outcome for each request."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from extproc.fleet.fleet import Fleet
from extproc.fleet.motion import Motion
from extproc.fleet.routing import Route, Router
from extproc.sim.batch import NEVER, Sequence, Use
from extproc.traces.trace import Trace

REPORTED_EVERY = 4096  # requests
NOWHERE = -1

Progress = Callable[[int], object]  # how many more requests have come
Times = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Of n requests, in the order of the trace. Treat the arrays as frozen, too."""

    fleet: Fleet
    arrival_ms: Times  # (n,)
    first_token_ms: Times  # (n,) infinite where there was none
    end_ms: Times  # (n,) infinite where it was refused
    pool: Counts  # (n,) NOWHERE where it was refused
    generated: Counts  # (n,) tokens
    preemptions: Counts  # (n,)
    misrouted: Flags  # (n,) sent to a pool that could not hold it: cut short, or tried again on a longer one
    truncated: Flags  # (n,) cut short
    spilled: Flags  # (n,) its own pool was full
    use: tuple[Use, ...]  # of each pool

    @property
    def refused(self) -> Flags:
        refused: Flags = self.pool == NOWHERE
        return refused

    @property
    def duration_ms(self) -> float:
        """From the first arrival to the last end."""
        ends = self.end_ms[np.isfinite(self.end_ms)]
        return float(ends.max() - self.arrival_ms[0]) if len(ends) else 0.0


def run(trace: Trace, fleet: Fleet, router: Router, progress: Progress = lambda _: None) -> Outcome:
    """All of it in this process."""
    return _Run(trace, fleet, router).all(progress)


@dataclass(slots=True)
class _Room:
    """What the sidecar's ledger would know of a pool."""

    sequences: int
    kv_tokens: int
    taken: int = 0
    reserved_tokens: int = 0

    def has(self, tokens: int) -> bool:
        return self.taken < self.sequences and self.reserved_tokens + tokens <= self.kv_tokens

    def take(self, tokens: int) -> None:
        self.taken += 1
        self.reserved_tokens += tokens

    def give_back(self, tokens: int) -> None:
        self.taken -= 1
        self.reserved_tokens -= tokens


@dataclass(slots=True)
class _Notes:
    """What becomes of each request."""

    requests: int
    first: array[float] = field(init=False)
    end: array[float] = field(init=False)
    pool: array[int] = field(init=False)
    generated: array[int] = field(init=False)
    preemptions: array[int] = field(init=False)
    reserved: array[int] = field(init=False)
    misrouted: bytearray = field(init=False)
    truncated: bytearray = field(init=False)
    spilled: bytearray = field(init=False)

    def __post_init__(self) -> None:
        n = self.requests
        self.first, self.end = array("d", [NEVER]) * n, array("d", [NEVER]) * n
        self.pool = array("q", [NOWHERE]) * n
        self.generated, self.preemptions, self.reserved = (array("q", bytes(8 * n)) for _ in range(3))
        self.misrouted, self.truncated, self.spilled = (bytearray(n) for _ in range(3))


class _Run:
    def __init__(self, trace: Trace, fleet: Fleet, router: Router) -> None:
        self._fleet = fleet
        self._router = router
        self._arrival_ms = trace.arrival_s * 1000.0
        self._prompts: list[int] = trace.prompt_tokens.tolist()
        self._outputs: list[int] = trace.output_tokens.tolist()
        self._motion = Motion(fleet)
        self._lengths = [pool.max_model_len for pool in fleet.pools]
        self._room = [
            _Room(pool.servers * pool.slots.max_num_seqs, pool.servers * pool.slots.kv_tokens) for pool in fleet.pools
        ]
        self._notes = _Notes(trace.requests)

    def all(self, progress: Progress) -> Outcome:
        reported = 0
        for number, at_ms in enumerate(self._arrival_ms.tolist()):
            if number - reported == REPORTED_EVERY:
                progress(REPORTED_EVERY)
                reported = number
            for ended in self._motion.advance(at_ms):
                self._end(ended)
            self._start(number, at_ms)
        for ended in self._motion.advance(NEVER):
            self._end(ended)
        progress(len(self._prompts) - reported)
        return self._outcome()

    def _start(self, number: int, at_ms: float) -> None:
        route = self._router.route(number)
        if not route.pools:
            return
        prompt, output = self._prompts[number], self._outputs[number]
        pool = self._with_room(route)
        if prompt + output > self._lengths[pool]:
            pool, output = self._misroute(number, pool, route)
            if pool == NOWHERE:
                return
        notes = self._notes
        notes.pool[number] = pool
        notes.reserved[number] = route.reserved_tokens
        notes.spilled[number] = pool > route.pools[0] and not notes.misrouted[number]
        self._room[pool].take(route.reserved_tokens)
        self._motion.send(pool, Sequence(number, prompt, output), at_ms)

    def _with_room(self, route: Route) -> int:
        """Where all are full the request waits with the servers of the one it prefers."""
        if len(route.pools) > 1:
            for pool in route.pools:
                if self._room[pool].has(route.reserved_tokens):
                    return pool
        return route.pools[0]

    def _misroute(self, number: int, pool: int, route: Route) -> tuple[int, int]:
        """Pool and answer of a request that this pool cannot hold.

        As vLLM 0.32: a prompt or an answer that is too long by itself is a 400, which Envoy answers with a try on the
        next pool where the verdict said so; else the answer is cut to the room there is.
        """
        prompt, output, longest = self._prompts[number], self._outputs[number], len(self._lengths) - 1
        while self._is_refused(prompt, output, pool):
            if pool == longest or not route.tries_again(pool):
                return NOWHERE, 0
            self._notes.misrouted[number] = True
            pool += 1
        room = self._lengths[pool] - prompt
        if output > room:
            self._notes.truncated[number] = self._notes.misrouted[number] = True
        return pool, min(output, room)

    def _is_refused(self, prompt: int, output: int, pool: int) -> bool:
        return max(prompt + min(output, 1), output) > self._lengths[pool]

    def _end(self, sequence: Sequence) -> None:
        number, notes = sequence.number, self._notes
        notes.first[number] = sequence.first_token_ms
        notes.end[number] = sequence.end_ms
        notes.generated[number] = sequence.output_tokens
        notes.preemptions[number] = sequence.preemptions
        self._room[notes.pool[number]].give_back(notes.reserved[number])
        self._router.ended(number, sequence.output_tokens)

    def _outcome(self) -> Outcome:
        notes = self._notes
        return Outcome(
            fleet=self._fleet,
            arrival_ms=self._arrival_ms,
            first_token_ms=np.array(notes.first),
            end_ms=np.array(notes.end),
            pool=np.array(notes.pool),
            generated=np.array(notes.generated),
            preemptions=np.array(notes.preemptions),
            misrouted=np.frombuffer(notes.misrouted, np.bool_),
            truncated=np.frombuffer(notes.truncated, np.bool_),
            spilled=np.frombuffer(notes.spilled, np.bool_),
            use=tuple(self._motion.use(pool) for pool in range(len(self._lengths))),
        )
