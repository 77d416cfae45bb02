"""The scheduler of one continuous-batching server, in leaps of many steps: what the clock and the fleet share.

While the batch stays as it is every step takes the same time and gives every decoding sequence one token. So the end
of the first that finishes, and the step at which the KV cache runs out, are known beforehand, and all steps until then
are one leap.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import deque
from collections.abc import Sequence as Some
from dataclasses import dataclass

from extproc.sim.timing import Timing

# vLLM's default max_num_batched_tokens: how much of all prompts one step reads, so that a long one does not stall the
# sequences that are decoding.
STEP_TOKENS = 2048
NEVER = math.inf


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
class Sequence:
    """One prompt and its answer. `output_tokens` of 0 only reads the prompt: an embedding."""

    number: int  # the caller's name for it
    prompt_tokens: int
    output_tokens: int
    first_token_ms: float = NEVER
    end_ms: float = NEVER
    preemptions: int = 0
    generated: int = 0  # up to date while it does not decode
    to_read: int = 0  # tokens whose KV must be computed (again) before the next token can come
    read: int = 0
    chunk: int = 0  # of the step under way: tokens read
    decoding: bool = False
    born: int = 0  # while it decodes: the batch's tick at which it would have had no token yet

    @property
    def context(self) -> int:
        """While it does not decode: tokens to read before its next one."""
        return self.prompt_tokens + self.generated

    @property
    def reserved(self) -> int:
        """While it does not decode: KV tokens it takes to read it and to generate one more."""
        return self.context + (self.generated < self.output_tokens)


@dataclass(slots=True)
class Use:
    """Of a server until its last change of batch: time integrals."""

    sequence_ms: float = 0.0  # sequences in the batch
    kv_token_ms: float = 0.0
    busy_ms: float = 0.0

    def add(self, other: Use) -> None:
        self.sequence_ms += other.sequence_ms
        self.kv_token_ms += other.kv_token_ms
        self.busy_ms += other.busy_ms


class Batch:
    """vLLM V1's scheduler in outline.

    First come, first served. A sequence joins the batch when its whole context fits into the KV cache. Each step gives
    one token to every sequence whose prompt is read, and spends what is left of its token budget on reading prompts.
    Where the KV cache runs out the youngest running sequence is preempted: its KV is freed, it goes back to the head of
    the queue and is read again from the start. As in vLLM, a step that preempted admits nobody.

    Call `proceed` at `next_ms`, and `arrive` in the order of time, after all that comes before.
    """

    def __init__(self, slots: Slots, timing: Timing, longest_leap: int = sys.maxsize) -> None:
        """`longest_leap` is in steps; with 1 every step is seen."""
        self.next_ms = NEVER  # when there is something to do
        self.running: dict[Sequence, None] = {}  # oldest first
        self.waiting: deque[Sequence] = deque()
        self.preempted: list[Sequence] = []  # by the last call of `proceed`, youngest first
        self.kv_tokens = 0  # held by what runs; of a leap, in its first step
        self.use = Use()
        self._slots = slots
        self._timing = timing
        self._longest_leap = longest_leap
        self._decode_ms: dict[int, float] = {}  # by sequences in the batch
        self._readers: list[Sequence] = []  # oldest first
        self._ends: list[tuple[int, int, Sequence]] = []  # of decoding sequences: tick, order, sequence
        self._admitted = 0
        self._decoding = 0
        self._ticks = 0  # steps so far: each gave one token to every decoding sequence
        self._steps = 0  # of the leap under way; 0 while idle
        self._step_ms = 0.0
        self._leap_began_ms = 0.0

    def tokens_of(self, sequence: Sequence) -> int:
        """What it has generated, after the last call of `proceed`."""
        return self._ticks - sequence.born if sequence.decoding else sequence.generated

    def arrive(self, sequence: Sequence, at_ms: float) -> None:
        """It must fit an empty server. It is looked at when the step under way at `at_ms` ends."""
        self.waiting.append(sequence)
        if not self._steps:
            self.next_ms = min(self.next_ms, at_ms)
        elif self._steps > 1 and self._may_join(sequence):
            self._cut(at_ms)

    def proceed(self) -> Some[Sequence]:
        """Ends the leap under way and begins the next one; who finished, in no order. `next_ms` must not be NEVER."""
        now_ms = self.next_ms
        ended = self._end_leap(now_ms) if self._steps else ()
        self._begin_leap(now_ms)
        return ended

    def abort(self, sequence: Sequence, now_ms: float) -> None:
        """Takes it out at once; the step under way still takes its time."""
        self._forget_ended_steps(now_ms)  # whoever waits behind it may be able to join at the end of this one
        if sequence in self.running:
            self._remove(sequence, growth=1)
        else:
            self.waiting.remove(sequence)

    def _may_join(self, newcomer: Sequence) -> bool:
        """False where it surely waits until the leap's end: who waits already is kept out until then, too."""
        return (
            len(self.waiting) == 1
            and len(self.running) < self._slots.max_num_seqs
            and self.kv_tokens + newcomer.reserved <= self._slots.kv_tokens
        )

    def _cut(self, at_ms: float) -> None:
        steps = max(1, math.ceil((at_ms - self._leap_began_ms) / self._step_ms))
        if steps < self._steps:
            self._steps = steps
            self.next_ms = self._leap_began_ms + steps * self._step_ms

    def _forget_ended_steps(self, now_ms: float) -> None:
        """Makes the leap under way one step, that of `now_ms`."""
        if self._steps > 1:
            ended = min(self._steps - 1, int((now_ms - self._leap_began_ms) / self._step_ms))
            self._account(ended)
            self.kv_tokens += self._decoding * ended
            self._ticks += ended
            self._leap_began_ms += ended * self._step_ms
            self._steps = 1
            self.next_ms = self._leap_began_ms + self._step_ms

    def _account(self, steps: int) -> None:
        use, duration_ms = self.use, steps * self._step_ms
        use.sequence_ms += len(self.running) * duration_ms
        use.kv_token_ms += duration_ms * (self.kv_tokens + self._decoding * (steps - 1) / 2)
        use.busy_ms += duration_ms

    def _end_leap(self, now_ms: float) -> Some[Sequence]:
        steps = self._steps
        self._account(steps)
        self._steps = 0
        self._ticks += steps
        self.kv_tokens += self._decoding * (steps - 1)
        ended: list[Sequence] = self._end_reading(now_ms) if self._readers else []
        ends, ticks = self._ends, self._ticks
        while ends and ends[0][0] <= ticks:
            sequence = heapq.heappop(ends)[2]
            sequence.decoding = False
            sequence.generated = sequence.output_tokens
            self._decoding -= 1
            ended.append(sequence)
        for sequence in ended:
            sequence.end_ms = now_ms
            del self.running[sequence]
            self.kv_tokens -= sequence.context
        return ended

    def _end_reading(self, now_ms: float) -> list[Sequence]:
        """Prompts that are read give their first token; those that want no more."""
        ended: list[Sequence] = []
        still: list[Sequence] = []
        for sequence in self._readers:
            sequence.read += sequence.chunk
            sequence.chunk = 0
            if sequence.read < sequence.to_read:
                still.append(sequence)
                continue
            if sequence.generated < sequence.output_tokens:
                sequence.generated += 1
                sequence.first_token_ms = min(sequence.first_token_ms, now_ms)
            if sequence.generated < sequence.output_tokens:
                self._start_decoding(sequence)
            else:
                ended.append(sequence)
        self._readers = still
        return ended

    def _start_decoding(self, sequence: Sequence) -> None:
        sequence.decoding = True
        sequence.born = self._ticks - sequence.generated
        self._decoding += 1
        self._admitted += 1
        heapq.heappush(self._ends, (sequence.born + sequence.output_tokens, self._admitted, sequence))

    def _begin_leap(self, now_ms: float) -> None:
        room = self._slots.kv_tokens
        self.preempted = self._preempt() if self.kv_tokens + self._decoding > room else []
        self.kv_tokens += self._decoding  # each decoding sequence takes one more
        if self.waiting and not self.preempted:
            self._admit()
        decoding = self._decoding
        if self._readers:
            self._steps, self._step_ms = 1, self._reading_step_ms()
        elif decoding:
            until_full = 1 + (room - self.kv_tokens) // decoding
            self._steps = min(self._ends[0][0] - self._ticks, until_full, self._longest_leap)
            self._step_ms = self._decode_step_ms(decoding)
        else:
            self.next_ms = NEVER
            return
        self._leap_began_ms = now_ms
        self.next_ms = now_ms + self._steps * self._step_ms

    def _preempt(self) -> list[Sequence]:
        preempted: list[Sequence] = []
        while self.kv_tokens + self._decoding > self._slots.kv_tokens:
            youngest = next(reversed(self.running))
            self._remove(youngest, growth=0)
            youngest.to_read = youngest.context
            youngest.read = 0
            youngest.preemptions += 1
            self.waiting.appendleft(youngest)
            preempted.append(youngest)
        return preempted

    def _remove(self, sequence: Sequence, growth: int) -> None:
        """From the batch. `growth`: KV tokens that a decoding sequence has reserved for the step under way."""
        del self.running[sequence]
        if sequence.decoding:
            sequence.generated = self._ticks - sequence.born
            sequence.decoding = False
            self._decoding -= 1
            self._ends = [end for end in self._ends if end[2] is not sequence]
            heapq.heapify(self._ends)
            self.kv_tokens -= sequence.context + growth
        else:
            self._readers.remove(sequence)
            self.kv_tokens -= sequence.reserved
            sequence.chunk = 0

    def _admit(self) -> None:
        slots, waiting, running = self._slots, self.waiting, self.running
        budget = slots.step_tokens - self._decoding - sum(s.to_read - s.read for s in self._readers)
        while budget > 0 and waiting and len(running) < slots.max_num_seqs:
            head = waiting[0]
            reserved = head.reserved
            if self.kv_tokens + reserved > slots.kv_tokens:
                return
            running[waiting.popleft()] = None
            self.kv_tokens += reserved
            head.to_read = head.context
            self._readers.append(head)
            budget -= head.to_read

    def _reading_step_ms(self) -> float:
        """Shares the step's tokens out among those who read, oldest first."""
        left = self._slots.step_tokens - self._decoding
        new_tokens = context = 0
        for sequence in self._readers:
            if left <= 0:
                break
            sequence.chunk = chunk = min(sequence.to_read - sequence.read, left)
            left -= chunk
            new_tokens += chunk
            context = max(context, sequence.read)
        return self._decode_step_ms(self._decoding) + self._timing.read_ms(new_tokens, context)

    def _decode_step_ms(self, batch: int) -> float:
        known = self._decode_ms.get(batch)
        if known is None:
            known = self._decode_ms[batch] = self._timing.decode_step_ms(batch)
        return known
