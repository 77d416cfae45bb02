"""A continuous-batching server as a clock: jobs in, tokens out, time is an argument.

It knows no asyncio and no sockets, so that one simulated server and a simulated fleet can share it.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from extproc.sim.timing import Timing

# vLLM's default max_num_batched_tokens: how much of all prompts one step reads, so that a long one does not stall the
# sequences that are decoding.
STEP_TOKENS = 2048


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


@dataclass(frozen=True, slots=True)
class Slots:
    """What a server has room for."""

    max_num_seqs: int
    kv_tokens: int
    step_tokens: int = STEP_TOKENS

    def __post_init__(self) -> None:
        if min(self.max_num_seqs, self.kv_tokens, self.step_tokens) < 1:
            raise ValueError("a server needs room for at least one sequence and one token")


@dataclass(slots=True, eq=False)
class _Sequence:
    job: Job
    generated: int = 0
    to_read: int = 0  # tokens whose KV must be computed (again) before the next token can come
    read: int = 0
    held: int = 0  # KV tokens
    chunk: int = 0  # of the current step: tokens read
    in_step: bool = False

    @property
    def context(self) -> int:
        return self.job.prompt_tokens + self.generated

    @property
    def wants_token(self) -> bool:
        return self.generated < self.job.output_tokens


class BatchingClock:
    """vLLM V1's scheduler in outline.

    First come, first served. A sequence joins the batch when its whole context fits into the KV cache. Each step gives
    one token to every sequence whose prompt is read, and spends what is left of its token budget on reading prompts.
    Where the KV cache runs out the youngest running sequence is preempted: its KV is freed, it goes back to the head of
    the queue and is read again from the start.
    """

    def __init__(self, slots: Slots, timing: Timing) -> None:
        self._slots = slots
        self._timing = timing
        self._arrivals: list[tuple[float, int, _Sequence]] = []
        self._submitted = 0
        self._known: dict[str, _Sequence] = {}
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []  # oldest first
        self._held = 0
        self._now_ms = 0.0
        self._step_end_ms: float | None = None

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + sum(1 for entry in self._arrivals if entry[0] <= self._now_ms)

    @property
    def kv_tokens(self) -> int:
        """KV tokens held by running sequences."""
        return self._held

    @property
    def next_event_ms(self) -> float | None:
        """When `advance` next has something to do; None while there is no work."""
        if self._step_end_ms is not None:
            return self._step_end_ms
        return max(self._now_ms, self._arrivals[0][0]) if self._arrivals else None

    def submit(self, job: Job) -> None:
        """Raises ValueError for a job that could never run, or whose id is in use."""
        if job.id in self._known:
            raise ValueError(f"job {job.id!r} is already here")
        if job.prompt_tokens < 1 or job.output_tokens < 0:
            raise ValueError("a job needs a prompt of at least one token and no negative output")
        if job.prompt_tokens + job.output_tokens > self._slots.kv_tokens:
            raise ValueError(f"job {job.id!r} is larger than the KV cache")
        sequence = _Sequence(job, to_read=job.prompt_tokens)
        self._known[job.id] = sequence
        heapq.heappush(self._arrivals, (job.arrival_ms, self._submitted, sequence))
        self._submitted += 1

    def abort(self, job_id: str) -> bool:
        """Ends a job and frees its KV at once; the step under way still takes its time. False if it is not here."""
        sequence = self._known.pop(job_id, None)
        if sequence is None:
            return False
        if sequence in self._running:
            self._leave(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        else:
            self._arrivals = [entry for entry in self._arrivals if entry[2] is not sequence]
            heapq.heapify(self._arrivals)
        return True

    def advance(self, now_ms: float) -> list[Event]:
        """Everything that happens up to and including `now_ms`, in order."""
        events: list[Event] = []
        while (at := self.next_event_ms) is not None and at <= now_ms:
            self._now_ms = at
            if self._step_end_ms is not None:
                events.extend(self._end_step(at))
            events.extend(self._begin_step(at))
        self._now_ms = max(self._now_ms, now_ms)
        return events

    def _end_step(self, at_ms: float) -> list[Event]:
        self._step_end_ms = None
        events: list[Event] = []
        for sequence in [s for s in self._running if s.in_step]:
            sequence.in_step = False
            sequence.read += sequence.chunk
            sequence.chunk = 0
            if sequence.read >= sequence.to_read:
                events.extend(self._yield_token(sequence, at_ms))
        return events

    def _yield_token(self, sequence: _Sequence, at_ms: float) -> list[Event]:
        events: list[Event] = []
        if sequence.wants_token:
            sequence.generated += 1
            events.append(Generated(sequence.job.id, at_ms, sequence.generated))
        if not sequence.wants_token:
            self._leave(sequence)
            del self._known[sequence.job.id]
            events.append(Finished(sequence.job.id, at_ms))
        return events

    def _begin_step(self, at_ms: float) -> list[Event]:
        while self._arrivals and self._arrivals[0][0] <= at_ms:
            self._waiting.append(heapq.heappop(self._arrivals)[2])
        preempted = self._grow(at_ms)
        decoding = sum(1 for s in self._running if s.in_step)
        left = self._slots.step_tokens - decoding
        context = 0
        new_tokens = 0
        for sequence in self._readers(admit=not preempted):
            if left <= 0:
                break
            sequence.chunk = min(sequence.to_read - sequence.read, left)
            sequence.in_step = True
            left -= sequence.chunk
            new_tokens += sequence.chunk
            context = max(context, sequence.read)
        if self._running:
            self._step_end_ms = at_ms + self._timing.step_ms(decoding, new_tokens, context)
        return preempted

    def _grow(self, at_ms: float) -> list[Event]:
        """Reserves the KV of the next token of every sequence whose prompt is read, oldest first."""
        preempted: list[Event] = []
        index = 0
        while index < len(self._running):
            sequence = self._running[index]
            missing = 0 if sequence.read < sequence.to_read else sequence.context + 1 - sequence.held
            while self._held + missing > self._slots.kv_tokens:
                youngest = self._running[-1]
                self._preempt(youngest)
                preempted.append(Preempted(youngest.job.id, at_ms))
                if youngest is sequence:
                    return preempted
            self._hold(sequence, missing)
            sequence.in_step = sequence.read >= sequence.to_read
            index += 1
        return preempted

    def _readers(self, *, admit: bool) -> list[_Sequence]:
        """Running sequences whose prompt is not read yet, oldest first.

        As vLLM does, a step that preempted admits nobody.
        """
        budget = self._slots.step_tokens - sum(1 for s in self._running if s.in_step)
        budget -= sum(s.to_read - s.read for s in self._running if not s.in_step)
        while admit and budget > 0 and self._waiting and len(self._running) < self._slots.max_num_seqs:
            head = self._waiting[0]
            need = head.context + head.wants_token
            if self._held + need > self._slots.kv_tokens:
                break
            self._running.append(self._waiting.popleft())
            self._hold(head, need)
            budget -= head.to_read
        return [s for s in self._running if not s.in_step]

    def _preempt(self, sequence: _Sequence) -> None:
        self._leave(sequence)
        sequence.to_read = sequence.context
        sequence.read = 0
        self._waiting.appendleft(sequence)

    def _leave(self, sequence: _Sequence) -> None:
        self._running.remove(sequence)
        self._hold(sequence, -sequence.held)
        sequence.in_step = False
        sequence.chunk = 0

    def _hold(self, sequence: _Sequence, kv_tokens: int) -> None:
        sequence.held += kv_tokens
        self._held += kv_tokens
