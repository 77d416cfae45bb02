from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.sim.batch import NEVER, Batch, Sequence, Slots
from extproc.sim.batching import BatchingClock, Event, Finished, Generated, Job, Preempted
from extproc.sim.timing import Curve, Timing, constant_decode, linear_prefill
from tests.sim.stepping import Stepper

JOBS = st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=25).map(
    lambda rows: [Job(str(index), *row) for index, row in enumerate(sorted(rows))]
)
SLOTS = st.builds(Slots, st.integers(1, 6), st.integers(120, 250), st.integers(1, 80))
# Times that floats hold exactly, so that arrivals may fall on the very end of a step.
PLAIN = Timing(linear_prefill(1000.0), constant_decode(8.0))
GROWING = Timing(Curve(((0, 0.0), (16, 24.0), (64, 256.0))), Curve(((1, 4.0), (2, 4.0), (4, 10.0))))
# Times that they do not.
MEASURED = Timing().faster(math.pi)


def leap(slots: Slots, timing: Timing, jobs: list[Job], longest_leap: int) -> tuple[Batch, list[Sequence]]:
    """All jobs through one batch, as the fleet simulator drives it."""
    batch = Batch(slots, timing, longest_leap)
    sequences = [Sequence(number, job.prompt_tokens, job.output_tokens) for number, job in enumerate(jobs)]
    for sequence, job in zip(sequences, jobs, strict=True):
        while batch.next_ms < job.arrival_ms:
            batch.proceed()
        batch.arrive(sequence, job.arrival_ms)
    while batch.next_ms < NEVER:
        batch.proceed()
    return batch, sequences


def outcome(events: list[Event], jobs: list[Job]) -> list[tuple[float, float, int]]:
    """First token, end and preemptions of each job."""
    first = {event.id: event.at_ms for event in events if isinstance(event, Generated) and event.token == 1}
    end = {event.id: event.at_ms for event in events if isinstance(event, Finished)}
    put_off = [event.id for event in events if isinstance(event, Preempted)]
    return [(first.get(job.id, NEVER), end[job.id], put_off.count(job.id)) for job in jobs]


def by_clock(slots: Slots, timing: Timing, jobs: list[Job]) -> list[Event]:
    clock = BatchingClock(slots, timing)
    for job in jobs:
        clock.submit(job)
    events: list[Event] = []
    while (at := clock.next_event_ms) is not None:
        events.extend(clock.advance(at))
    return events


timings = pytest.mark.parametrize("timing", [PLAIN, GROWING, MEASURED], ids=["plain", "growing", "measured"])


@timings
@settings(max_examples=150, deadline=None)
@given(jobs=JOBS, slots=SLOTS)
def test_the_clock_is_the_plain_stepper(timing: Timing, jobs: list[Job], slots: Slots) -> None:
    expected, found = Stepper(slots, timing, jobs).run(), by_clock(slots, timing, jobs)
    assert [type(event) for event in found] == [type(event) for event in expected]
    assert [event.id for event in found] == [event.id for event in expected]
    assert [event.at_ms for event in found] == pytest.approx([event.at_ms for event in expected], abs=1e-6)


@timings
@settings(max_examples=300, deadline=None)
@given(jobs=JOBS, slots=SLOTS)
def test_a_leap_of_many_steps_is_those_steps(timing: Timing, jobs: list[Job], slots: Slots) -> None:
    _, sequences = leap(slots, timing, jobs, longest_leap=10**9)
    found = [(one.first_token_ms, one.end_ms, one.preemptions) for one in sequences]
    expected = outcome(Stepper(slots, timing, jobs).run(), jobs)
    assert [one[2] for one in found] == [one[2] for one in expected]
    assert [one[:2] for one in found] == [pytest.approx(one[:2], abs=1e-6) for one in expected]


@timings
@settings(max_examples=100, deadline=None)
@given(jobs=JOBS, slots=SLOTS)
def test_leaps_use_the_server_as_their_steps_do(timing: Timing, jobs: list[Job], slots: Slots) -> None:
    leaping, _ = leap(slots, timing, jobs, longest_leap=10**9)
    stepping, _ = leap(slots, timing, jobs, longest_leap=1)
    for name in ("sequence_ms", "kv_token_ms", "busy_ms"):
        assert getattr(leaping.use, name) == pytest.approx(getattr(stepping.use, name), rel=1e-9)
    assert (leaping.kv_tokens, stepping.kv_tokens) == (0, 0)


@settings(max_examples=200, deadline=None)
@given(jobs=JOBS, slots=SLOTS, at=st.integers(0, 3000), whose=st.integers(0, 24))
@example(
    jobs=[Job("a", 0, 10, 50), Job("large", 1, 190, 1), Job("small", 2, 10, 1)], slots=Slots(3, 200), at=100, whose=1
)
def test_an_abort_within_a_leap_is_one_between_its_steps(jobs: list[Job], slots: Slots, at: int, whose: int) -> None:
    at_ms = at + 0.5  # never at the end of a step
    runs = [aborted(Batch(slots, PLAIN, leap), jobs, at_ms, whose % len(jobs)) for leap in (1, 10**9)]
    assert runs[0] == [pytest.approx(ends, abs=1e-6) for ends in runs[1]]


def aborted(batch: Batch, jobs: list[Job], at_ms: float, whose: int) -> list[tuple[float, float]]:
    """First tokens and ends where all jobs that come before are there, and one is aborted then."""
    sequences = [Sequence(number, job.prompt_tokens, job.output_tokens) for number, job in enumerate(jobs)]
    for sequence, job in zip(sequences, jobs, strict=True):
        if job.arrival_ms > at_ms:
            break
        while batch.next_ms < job.arrival_ms:
            batch.proceed()
        batch.arrive(sequence, job.arrival_ms)
    while batch.next_ms <= at_ms:
        batch.proceed()
    if jobs[whose].arrival_ms <= at_ms and sequences[whose].end_ms == NEVER:
        batch.abort(sequences[whose], at_ms)
    while batch.next_ms < NEVER:
        batch.proceed()
    assert batch.kv_tokens == 0
    return [(one.first_token_ms, one.end_ms) for one in sequences]


def test_a_long_answer_alone_is_two_leaps() -> None:
    batch = Batch(Slots(8, 100_000), PLAIN)
    batch.arrive(Sequence(0, 10, 50_000), 0.0)
    times = []
    while batch.next_ms < NEVER:
        times.append(batch.next_ms)
        batch.proceed()
    assert times == [0, 10, 10 + 8 * 49_999]
