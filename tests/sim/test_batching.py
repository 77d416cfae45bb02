from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.sim.batching import BatchingClock, Event, Finished, Generated, Job, Preempted, Slots
from extproc.sim.timing import Timing, constant_decode, linear_prefill

# 1 ms to read a token, 10 ms for a decode step: times that can be added up by hand.
PLAIN = Timing(linear_prefill(1000.0), constant_decode(10.0))
ROOMY = Slots(max_num_seqs=8, kv_tokens=10_000)


def clock_with(*jobs: Job, slots: Slots = ROOMY) -> BatchingClock:
    clock = BatchingClock(slots, PLAIN)
    for job in jobs:
        clock.submit(job)
    return clock


def run(clock: BatchingClock) -> list[Event]:
    events: list[Event] = []
    while (at := clock.next_event_ms) is not None:
        events.extend(clock.advance(at))
    return events


def test_a_lone_job_takes_its_prefill_and_a_step_for_each_further_token() -> None:
    assert run(clock_with(Job("a", 5, prompt_tokens=20, output_tokens=3))) == [
        Generated("a", 25, 1),
        Generated("a", 35, 2),
        Generated("a", 45, 3),
        Finished("a", 45),
    ]


def test_a_job_without_output_finishes_with_its_prefill() -> None:
    assert run(clock_with(Job("a", 0, prompt_tokens=20, output_tokens=0))) == [Finished("a", 20)]


def test_jobs_decode_together() -> None:
    events = run(clock_with(Job("a", 0, 10, 2), Job("b", 0, 10, 2)))
    assert [(event.id, event.at_ms) for event in events if isinstance(event, Generated)] == [
        ("a", 20),
        ("b", 20),
        ("a", 30),
        ("b", 30),
    ]


def test_a_job_that_arrives_during_a_step_joins_at_its_end() -> None:
    events = run(clock_with(Job("a", 0, 10, 3), Job("b", 11, 10, 1)))
    assert Generated("b", 40, 1) in events  # step of a until 20, then 10 ms of a's decoding and 10 ms of b's prompt
    assert Generated("a", 40, 3) in events


def test_the_batch_is_bounded_and_the_queue_is_first_come_first_served() -> None:
    events = run(clock_with(Job("a", 0, 10, 2), Job("b", 1, 10, 1), Job("c", 2, 10, 1), slots=Slots(1, 1000)))
    assert [event for event in events if isinstance(event, Finished)] == [
        Finished("a", 20),
        Finished("b", 30),
        Finished("c", 40),
    ]


def test_a_long_prompt_is_read_in_chunks_between_which_others_decode() -> None:
    slots = Slots(max_num_seqs=8, kv_tokens=10_000, step_tokens=100)
    events = run(clock_with(Job("a", 0, 10, 20), Job("long", 1, 500, 1), slots=slots))
    before = [event for event in events if event.at_ms < 500 and event.id == "a"]
    assert len(before) > 4


def test_a_job_waits_until_its_context_fits_into_the_kv_cache() -> None:
    events = run(clock_with(Job("a", 0, 60, 5), Job("b", 0, 60, 1), slots=Slots(8, 100)))
    assert [event for event in events if isinstance(event, Finished)] == [Finished("a", 100), Finished("b", 160)]


def test_the_youngest_is_preempted_when_the_kv_cache_runs_out_and_read_again_later() -> None:
    events = run(clock_with(Job("a", 0, 10, 6), Job("b", 0, 10, 6), slots=Slots(8, 25)))
    assert events == [
        Generated("a", 20, 1),
        Generated("b", 20, 1),
        Generated("a", 30, 2),
        Generated("b", 30, 2),
        Preempted("b", 30),
        Generated("a", 40, 3),
        Generated("a", 50, 4),
        Generated("a", 60, 5),
        Generated("a", 70, 6),
        Finished("a", 70),
        Generated("b", 82, 3),  # its ten prompt tokens and the two it had generated are read again
        Generated("b", 92, 4),
        Generated("b", 102, 5),
        Generated("b", 112, 6),
        Finished("b", 112),
    ]


def test_a_preempted_job_goes_to_the_head_of_the_queue() -> None:
    jobs = (Job("a", 0, 10, 6), Job("b", 0, 10, 6), Job("c", 25, 12, 1))
    finished = [event.id for event in run(clock_with(*jobs, slots=Slots(8, 25))) if isinstance(event, Finished)]
    assert finished == ["a", "b", "c"]


@pytest.mark.parametrize(
    "at_ms",
    [
        pytest.param(0, id="before it arrived"),
        pytest.param(5, id="while its prompt is read"),
        pytest.param(25, id="while it decodes"),
    ],
)
def test_an_abort_frees_the_kv_cache_at_once(at_ms: float) -> None:
    clock = clock_with(Job("a", 1, 10, 6))
    clock.advance(at_ms)
    assert clock.abort("a")
    assert (clock.running, clock.waiting, clock.kv_tokens) == (0, 0, 0)
    assert run(clock) == []


def test_an_aborted_waiting_job_never_runs() -> None:
    clock = clock_with(Job("a", 0, 10, 2), Job("b", 0, 10, 2), slots=Slots(1, 100))
    clock.advance(5)
    assert clock.waiting == 1
    assert clock.abort("b")
    assert {event.id for event in run(clock)} == {"a"}


def test_aborting_what_is_not_there_is_no_error() -> None:
    assert not clock_with().abort("a")


@pytest.mark.parametrize(
    ("job", "message"),
    [
        pytest.param(Job("b", 0, 9_000, 1_001), "larger than the KV cache", id="too large"),
        pytest.param(Job("a", 0, 1, 1), "already here", id="id in use"),
        pytest.param(Job("b", 0, 0, 1), "at least one token", id="no prompt"),
        pytest.param(Job("b", 0, 1, -1), "no negative output", id="negative output"),
    ],
)
def test_a_job_that_could_never_run_is_refused(job: Job, message: str) -> None:
    clock = clock_with(Job("a", 0, 1, 1))
    with pytest.raises(ValueError, match=message):
        clock.submit(job)


def test_a_future_arrival_is_not_yet_waiting() -> None:
    clock = clock_with(Job("a", 100, 1, 1))
    clock.advance(50)
    assert (clock.waiting, clock.next_event_ms) == (0, 100)


JOBS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(1, 60), st.integers(0, 40)),
    min_size=1,
    max_size=25,
).map(lambda rows: [Job(str(index), *row) for index, row in enumerate(rows)])
SLOTS = st.builds(Slots, st.integers(1, 6), st.integers(100, 200), st.integers(1, 80))
# When (in events) which job is aborted.
ABORTS = st.dictionaries(st.integers(0, 60), st.integers(0, 24), max_size=5)


@settings(max_examples=200, deadline=None)
@given(jobs=JOBS, slots=SLOTS, aborts=ABORTS)
def test_any_work_keeps_within_the_server_and_finishes_exactly_once(
    jobs: list[Job],
    slots: Slots,
    aborts: dict[int, int],
) -> None:
    clock = clock_with(*jobs, slots=slots)
    events: list[Event] = []
    aborted: set[str] = set()
    step = 0
    while (at := clock.next_event_ms) is not None:
        events.extend(clock.advance(at))
        if step in aborts and clock.abort(str(aborts[step])):
            aborted.add(str(aborts[step]))
        step += 1
        assert clock.kv_tokens <= slots.kv_tokens
        assert clock.running <= slots.max_num_seqs

    assert (clock.running, clock.waiting, clock.kv_tokens) == (0, 0, 0)
    assert [event.at_ms for event in events] == sorted(event.at_ms for event in events)
    finished = Counter(event.id for event in events if isinstance(event, Finished))
    assert finished == {job.id: 1 for job in jobs if job.id not in aborted}
    for job in jobs:
        numbers = [event.token for event in events if isinstance(event, Generated) and event.id == job.id]
        expected = len(numbers) if job.id in aborted else job.output_tokens
        assert numbers == list(range(1, expected + 1))


@settings(max_examples=100, deadline=None)
@given(jobs=JOBS, slots=SLOTS)
def test_throughput_is_never_above_the_analytic_capacity(jobs: list[Job], slots: Slots) -> None:
    """Once prompts are free of charge, a full batch yields its size in tokens each decode step."""
    clock = BatchingClock(slots, Timing(linear_prefill(1e-9), constant_decode(10.0)))
    for job in jobs:
        clock.submit(job)
    generated = [event for event in run(clock) if isinstance(event, Generated) and event.token > 1]
    if generated:
        steps = (generated[-1].at_ms - min(job.arrival_ms for job in jobs)) / 10.0
        assert len(generated) <= slots.max_num_seqs * (steps + 1e-6)


@settings(max_examples=50, deadline=None)
@given(jobs=JOBS, slots=SLOTS, pause_ms=st.floats(0.1, 300))
def test_how_often_the_clock_is_read_changes_nothing(jobs: list[Job], slots: Slots, pause_ms: float) -> None:
    seldom = clock_with(*jobs, slots=slots)
    events: list[Event] = []
    now = 0.0
    while seldom.next_event_ms is not None:
        now += pause_ms
        events.extend(seldom.advance(now))
    assert events == run(clock_with(*jobs, slots=slots))
