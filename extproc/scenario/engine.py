"""One simulated server in virtual time, and the replay of a trace on it alone."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from extproc.scenario.arena import Ask
from extproc.scenario.orders import Order
from extproc.scenario.vtc import Served
from extproc.sim.batching import BatchingClock, Finished, Generated, Job, Preempted, Slots
from extproc.sim.timing import Timing


@dataclass(frozen=True, slots=True)
class Run:
    served: tuple[Served, ...]
    preempted: int  # times that the server ran out of KV tokens and put one off

    @property
    def refused(self) -> int:
        return sum(one.ended_at is None for one in self.served)

    @property
    def tokens_per_second(self) -> float:
        """Prompts and answers, until the last was done."""
        done = [one for one in self.served if one.ended_at is not None]
        tokens = sum(one.prompt_tokens + one.output_tokens for one in done)
        return tokens / max((one.ended_at or 0.0 for one in done), default=1.0)

    def ttft_seconds(self, fraction: float) -> float:
        """Until the first token, of all that were not refused: the given quantile."""
        waits = sorted(one.first_token_at - one.asked_at for one in self.served if one.first_token_at is not None)
        return waits[min(len(waits) - 1, int(fraction * len(waits)))] if waits else 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """What happened, once for each token, end and preemption."""

    generated: tuple[Ask, ...]
    finished: tuple[Ask, ...]
    preempted: tuple[Ask, ...]


class Engine:
    """A batching clock that remembers when each request had its first token and its last."""

    def __init__(self, slots: Slots, timing: Timing) -> None:
        self._clock = BatchingClock(slots, timing)
        self._slots = slots
        self._asks: dict[str, Ask] = {}
        self._generated: Counter[int] = Counter()
        self._first_ms: dict[int, float] = {}
        self._end_ms: dict[int, float] = {}
        self._preempted = 0

    @property
    def next_event_ms(self) -> float | None:
        return self._clock.next_event_ms

    @property
    def free_kv_tokens(self) -> int:
        """What a newcomer may take; nothing while the server itself has a queue."""
        return 0 if self._clock.waiting else self._slots.kv_tokens - self._clock.kv_tokens

    def context(self, ask: Ask) -> int:
        """Tokens to be read before its next one: of the prompt, and of its answer where it was put off."""
        return ask.prompt_tokens + self._generated[ask.number]

    def submit(self, ask: Ask, now_ms: float) -> None:
        self._asks[ask.id] = ask
        left = ask.output_tokens - self._generated[ask.number]
        self._clock.submit(Job(ask.id, now_ms, self.context(ask), left))

    def withdraw(self, ask: Ask) -> None:
        """Of one that was preempted: it is no longer the server's to start again."""
        self._clock.abort(ask.id)

    def advance(self, now_ms: float) -> Step:
        generated, finished, preempted = [], [], []
        for event in self._clock.advance(now_ms):
            ask = self._asks[event.id]
            match event:
                case Generated():
                    self._first_ms.setdefault(ask.number, event.at_ms)
                    self._generated[ask.number] += 1
                    generated.append(ask)
                case Finished():
                    self._end_ms[ask.number] = event.at_ms
                    finished.append(ask)
                case Preempted():
                    preempted.append(ask)
                case _:
                    assert_never(event)
        self._preempted += len(preempted)
        return Step(tuple(generated), tuple(finished), tuple(preempted))

    def run(self, asks: Sequence[Ask]) -> Run:
        """What became of them; whoever has no end was refused."""
        return Run(tuple(_served(ask, self._first_ms, self._end_ms) for ask in asks), self._preempted)


def replay(asks: Sequence[Ask], engine: Engine, order: Order) -> Run:
    """The trace on the server alone, which starts whoever is next in order as soon as his prompt has room."""
    coming = deque(asks)
    while (now_ms := _next_ms(engine, coming)) is not None:
        step = engine.advance(now_ms)
        for ask in step.generated:
            order.generated(ask)
        for ask in step.preempted:
            engine.withdraw(ask)
            order.put_off(ask)
        while coming and coming[0].at_ms <= now_ms:
            order.arrived(coming.popleft())
        _start(engine, order, now_ms)
    return engine.run(asks)


def _next_ms(engine: Engine, coming: Sequence[Ask]) -> float | None:
    times = [engine.next_event_ms, coming[0].at_ms if coming else None]
    return min((time for time in times if time is not None), default=None)


def _start(engine: Engine, order: Order, now_ms: float) -> None:
    room = engine.free_kv_tokens
    while (ask := order.next()) is not None and engine.context(ask) < room:
        room -= engine.context(ask) + 1  # and its next token
        order.started(ask)
        engine.submit(ask, now_ms)


def _served(ask: Ask, first_ms: Mapping[int, float], end_ms: Mapping[int, float]) -> Served:
    first, end = first_ms.get(ask.number), end_ms.get(ask.number)
    return Served(
        client=ask.client,
        asked_at=ask.at_ms / 1000,
        prompt_tokens=ask.prompt_tokens,
        output_tokens=ask.output_tokens,
        first_token_at=None if first is None else first / 1000,
        ended_at=None if end is None else end / 1000,
    )
