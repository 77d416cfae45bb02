"""A continuous-batching server as a clock: jobs in, tokens out, time is an argument.

It knows no asyncio and no sockets, so that one simulated server and a simulated fleet can share it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from extproc.sim.batch import NEVER, STEP_TOKENS, Batch, Sequence, Slots
from extproc.sim.timing import Timing

__all__ = ["STEP_TOKENS", "BatchingClock", "Event", "Finished", "Generated", "Job", "Preempted", "Slots"]


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence. `output_tokens` of 0 only reads the prompt: an embedding."""

    id: str
    arrival_ms: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Generated:
    id: str
    at_ms: float
    token: int  # 1 is the first


@dataclass(frozen=True, slots=True)
class Preempted:
    id: str
    at_ms: float


@dataclass(frozen=True, slots=True)
class Finished:
    id: str
    at_ms: float


Event = Generated | Preempted | Finished


class BatchingClock:
    """A `Batch` whose every token is an event, and that knows of arrivals to come."""

    def __init__(self, slots: Slots, timing: Timing) -> None:
        self._slots = slots
        self._batch = Batch(slots, timing, longest_leap=1)
        self._arrivals: list[tuple[float, int, Sequence]] = []
        self._submitted = 0
        self._jobs: dict[int, Job] = {}
        self._known: dict[str, Sequence] = {}
        self._now_ms = 0.0

    @property
    def running(self) -> int:
        return len(self._batch.running)

    @property
    def waiting(self) -> int:
        return len(self._batch.waiting) + sum(1 for entry in self._arrivals if entry[0] <= self._now_ms)

    @property
    def kv_tokens(self) -> int:
        """KV tokens held by running sequences."""
        return self._batch.kv_tokens

    @property
    def next_event_ms(self) -> float | None:
        """When `advance` next has something to do; None while there is no work."""
        if self._batch.next_ms != NEVER:
            return self._batch.next_ms
        return max(self._now_ms, self._arrivals[0][0]) if self._arrivals else None

    def submit(self, job: Job) -> None:
        """Raises ValueError for a job that could never run, or whose id is in use."""
        if job.id in self._known:
            raise ValueError(f"job {job.id!r} is already here")
        if job.prompt_tokens < 1 or job.output_tokens < 0:
            raise ValueError("a job needs a prompt of at least one token and no negative output")
        if job.prompt_tokens + job.output_tokens > self._slots.kv_tokens:
            raise ValueError(f"job {job.id!r} is larger than the KV cache")
        self._submitted += 1
        sequence = Sequence(self._submitted, job.prompt_tokens, job.output_tokens)
        self._jobs[self._submitted] = job
        self._known[job.id] = sequence
        heapq.heappush(self._arrivals, (job.arrival_ms, self._submitted, sequence))

    def abort(self, job_id: str) -> bool:
        """Ends a job and frees its KV at once; the step under way still takes its time. False if it is not here."""
        sequence = self._known.get(job_id)
        if sequence is None:
            return False
        if any(entry[2] is sequence for entry in self._arrivals):
            self._arrivals = [entry for entry in self._arrivals if entry[2] is not sequence]
            heapq.heapify(self._arrivals)
        else:
            self._batch.abort(sequence, self._now_ms)
        self._forget(sequence)
        return True

    def advance(self, now_ms: float) -> list[Event]:
        """Everything that happens up to and including `now_ms`, in order."""
        events: list[Event] = []
        while (at := self.next_event_ms) is not None and at <= now_ms:
            self._now_ms = at
            while self._arrivals and self._arrivals[0][0] <= at:
                self._batch.arrive(heapq.heappop(self._arrivals)[2], at)
            events.extend(self._step(at))
        self._now_ms = max(self._now_ms, now_ms)
        return events

    def _step(self, at_ms: float) -> Iterator[Event]:
        """The end of a step and the beginning of the next: tokens and ends, oldest first, then who was put off."""
        before = [(sequence, self._batch.tokens_of(sequence)) for sequence in self._batch.running]
        self._batch.proceed()
        for sequence, tokens in before:
            job_id = self._jobs[sequence.number].id
            if self._batch.tokens_of(sequence) > tokens:
                yield Generated(job_id, at_ms, tokens + 1)
            if sequence.end_ms != NEVER:
                self._forget(sequence)
                yield Finished(job_id, at_ms)
        for sequence in self._batch.preempted:
            yield Preempted(self._jobs[sequence.number].id, at_ms)

    def _forget(self, sequence: Sequence) -> None:
        del self._known[self._jobs.pop(sequence.number).id]
