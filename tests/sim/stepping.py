"""The scheduler one step at a time, as plainly as it can be said: what leaps are held against."""

from __future__ import annotations

from dataclasses import dataclass

from extproc.sim.batching import Event, Finished, Generated, Job, Preempted, Slots
from extproc.sim.timing import Timing


@dataclass(slots=True, eq=False)
class Running:
    job: Job
    generated: int = 0
    to_read: int = 0
    read: int = 0
    held: int = 0
    chunk: int = 0
    in_step: bool = False

    @property
    def context(self) -> int:
        return self.job.prompt_tokens + self.generated

    @property
    def wants_token(self) -> bool:
        return self.generated < self.job.output_tokens


class Stepper:
    def __init__(self, slots: Slots, timing: Timing, jobs: list[Job]) -> None:
        self.slots, self.timing = slots, timing
        self.arrivals = sorted(jobs, key=lambda job: job.arrival_ms)
        self.waiting: list[Running] = []
        self.running: list[Running] = []
        self.events: list[Event] = []

    def run(self) -> list[Event]:
        now = self.arrivals[0].arrival_ms
        while True:
            step_ms = self.begin_step(now)
            if self.running:
                now += step_ms
                self.end_step(now)
            elif self.arrivals:
                now = max(now, self.arrivals[0].arrival_ms)
            else:
                return self.events

    def begin_step(self, now: float) -> float:
        while self.arrivals and self.arrivals[0].arrival_ms <= now:
            job = self.arrivals.pop(0)
            self.waiting.append(Running(job, to_read=job.prompt_tokens))
        preempted = self.grow(now)
        if not preempted:
            self.admit()
        decoding = sum(one.in_step for one in self.running)
        left = self.slots.step_tokens - decoding
        new_tokens = context = 0
        for one in [one for one in self.running if not one.in_step]:
            if left <= 0:
                break
            one.chunk = min(one.to_read - one.read, left)
            one.in_step = True
            left -= one.chunk
            new_tokens += one.chunk
            context = max(context, one.read)
        return self.timing.step_ms(decoding, new_tokens, context)

    def grow(self, now: float) -> bool:
        """Room for the next token of each whose prompt is read, oldest first; the youngest makes way."""
        any_preempted = False
        for one in list(self.running):
            if one.read < one.to_read or one not in self.running:
                continue
            while one in self.running and self.held + one.context + 1 - one.held > self.slots.kv_tokens:
                self.preempt(self.running[-1], now)
                any_preempted = True
            if one in self.running:
                one.held = one.context + 1
                one.in_step = True
        return any_preempted

    @property
    def held(self) -> int:
        return sum(one.held for one in self.running)

    def preempt(self, one: Running, now: float) -> None:
        self.running.remove(one)
        one.held = one.read = one.chunk = 0
        one.in_step = False
        one.to_read = one.context
        self.waiting.insert(0, one)
        self.events.append(Preempted(one.job.id, now))

    def admit(self) -> None:
        budget = self.slots.step_tokens - sum(one.in_step for one in self.running)
        budget -= sum(one.to_read - one.read for one in self.running if not one.in_step)
        while budget > 0 and self.waiting and len(self.running) < self.slots.max_num_seqs:
            head = self.waiting[0]
            need = head.context + head.wants_token
            if self.held + need > self.slots.kv_tokens:
                return
            self.running.append(self.waiting.pop(0))
            head.held = need
            budget -= head.to_read

    def end_step(self, now: float) -> None:
        for one in [one for one in self.running if one.in_step]:
            one.in_step = False
            one.read += one.chunk
            one.chunk = 0
            if one.read < one.to_read:
                continue
            if one.wants_token:
                one.generated += 1
                self.events.append(Generated(one.job.id, now, one.generated))
            if not one.wants_token:
                self.running.remove(one)
                self.events.append(Finished(one.job.id, now))
