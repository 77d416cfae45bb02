"""The batching clock in real time: hands each request its tokens as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, assert_never

from extproc.sim.asks import Planned
from extproc.sim.batching import BatchingClock, Event, Finished, Generated, Job, Preempted
from extproc.sim.metrics import Counters, Load
from extproc.sim.options import SimOptions


@dataclass(frozen=True, slots=True)
class Token:
    sequence: int  # which of the request's sequences
    last: bool


class Generation:
    """The tokens of one request. Used as a context manager: whatever is unfinished at its end is aborted."""

    def __init__(self, engine: Engine, job_ids: Sequence[str]) -> None:
        self._engine = engine
        self._job_ids = job_ids
        self._open = len(job_ids)
        self._tokens: list[Token] = []
        self._ready = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for job_id in self._job_ids:
            self._engine.abort(job_id)

    async def take(self) -> list[Token]:
        """All tokens since the last call, at least one; nothing once every sequence is finished."""
        while self._open and not self._tokens:
            self._ready.clear()
            await self._ready.wait()
        taken, self._tokens = self._tokens, []
        return taken

    def add(self, token: Token) -> None:
        self._tokens.append(token)
        self._ready.set()

    def finish(self) -> None:
        """One more sequence is finished."""
        self._open -= 1
        self._ready.set()


@dataclass(frozen=True, slots=True)
class _Owner:
    generation: Generation
    sequence: int
    planned: Planned
    arrival_ms: float


class Engine:
    """One per server. Lives on its event loop: a timer at the clock's next event, no task, nothing while idle."""

    def __init__(self, options: SimOptions) -> None:
        self.counters = Counters()
        self._kv_tokens = options.slots.kv_tokens
        self._clock = BatchingClock(options.slots, options.timing)
        self._loop = asyncio.get_running_loop()
        self._owners: dict[str, _Owner] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._jobs = 0

    @property
    def load(self) -> Load:
        held = self._clock.kv_tokens
        return Load(self._clock.running, self._clock.waiting, held, held / self._kv_tokens)

    def submit(self, sequences: Sequence[Planned]) -> Generation:
        now_ms = self._loop.time() * 1000.0
        self._advance(now_ms)
        job_ids = [str(self._jobs + index) for index in range(len(sequences))]
        self._jobs += len(sequences)
        generation = Generation(self, job_ids)
        for index, (job_id, planned) in enumerate(zip(job_ids, sequences, strict=True)):
            self._owners[job_id] = _Owner(generation, index, planned, now_ms)
            self._clock.submit(Job(job_id, now_ms, planned.prompt_tokens, planned.output_tokens))
        self._advance(now_ms)
        return generation

    def abort(self, job_id: str) -> None:
        """Nothing happens where the job is finished."""
        if self._owners.pop(job_id, None) is not None:
            self._clock.abort(job_id)
            self.counters.finished["abort"] += 1

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _advance(self, now_ms: float) -> None:
        for event in self._clock.advance(now_ms):
            self._deliver(event)
        at_ms = self._clock.next_event_ms
        if at_ms is not None and self._timer is None:
            # The step's end is never moved by what arrives or leaves meanwhile, so one timer is enough.
            self._timer = self._loop.call_at(at_ms / 1000.0, self._tick, at_ms)

    def _tick(self, at_ms: float) -> None:
        self._timer = None
        # A loop may fire its timers a fraction of a millisecond early.
        self._advance(max(at_ms, self._loop.time() * 1000.0))

    def _deliver(self, event: Event) -> None:
        owner = self._owners[event.id]
        match event:
            case Generated(token=number, at_ms=at_ms):
                self._count_token(owner, number, at_ms)
                owner.generation.add(Token(owner.sequence, last=number == owner.planned.output_tokens))
            case Finished():
                del self._owners[event.id]
                self.counters.finished[owner.planned.finish_reason] += 1
                if not owner.planned.output_tokens:
                    self.counters.prompt_tokens += owner.planned.prompt_tokens
                owner.generation.finish()
            case Preempted():
                self.counters.preemptions += 1
            case _:
                assert_never(event)

    def _count_token(self, owner: _Owner, number: int, at_ms: float) -> None:
        self.counters.generation_tokens += 1
        if number == 1:
            self.counters.prompt_tokens += owner.planned.prompt_tokens
            self.counters.first_token((at_ms - owner.arrival_ms) / 1000.0)
