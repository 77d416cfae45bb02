from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.fleet.fleet import Choice, Fleet, FleetError
from extproc.fleet.routing import ByLength, Route
from extproc.fleet.simulation import NOWHERE, Outcome, run
from extproc.sim.batch import Slots
from extproc.traces.trace import Trace
from tests.fleet.fleets import alone, mixed, pool, split, trace_of


class Always:
    """Sends every request the same way."""

    def __init__(self, *pools: int, again: bool = False) -> None:
        self._route = Route(pools, 0, lambda _: again)

    def route(self, number: int) -> Route:  # noqa: ARG002 - the protocol's
        return self._route

    def ended(self, number: int, generated: int) -> None:
        pass


def by_length(trace: Trace, fleet: Fleet) -> Outcome:
    return run(trace, fleet, ByLength(trace, fleet))


def test_a_lone_request_takes_its_prefill_and_a_step_for_each_further_token() -> None:
    outcome = by_length(trace_of((1.0, 100, 3)), alone())
    assert (outcome.first_token_ms[0], outcome.end_ms[0]) == (1010.0, 1030.0)
    assert (outcome.generated[0], outcome.duration_ms) == (3, 30.0)


def test_true_length_goes_to_the_shortest_pool_that_holds_it() -> None:
    trace = trace_of((0, 1000, 24), (0, 1000, 25), (0, 4000, 96), (0, 4000, 97))
    assert by_length(trace, split()).pool.tolist() == [0, 1, 1, NOWHERE]


def test_what_no_pool_holds_is_refused() -> None:
    outcome = by_length(trace_of((0, 4000, 97), (0, 1, 1)), alone())
    assert (outcome.refused.tolist(), outcome.end_ms[0]) == ([True, False], np.inf)


@pytest.mark.parametrize("choice", Choice)
def test_equal_servers_share_equal_requests(choice: Choice) -> None:
    """Three at once on three servers: none waits for another's prompt."""
    fleet = Fleet("three", (pool(servers=3),), choice)
    assert by_length(trace_of(*[(0.0, 100, 1)] * 3), fleet).end_ms.tolist() == [10.0] * 3


def test_the_server_with_the_fewest_requests_is_chosen() -> None:
    trace = trace_of((0, 100, 500), (0.1, 100, 1), (0.2, 100, 1))  # the first is still there, the second is gone
    assert by_length(trace, Fleet("two", (pool(servers=2),))).end_ms[2] == pytest.approx(210.0)


def test_in_turn_a_busy_server_is_chosen_as_well() -> None:
    trace = trace_of((0, 100, 500), (0.1, 100, 1), (0.2, 100, 1))
    assert by_length(trace, Fleet("two", (pool(servers=2),), Choice.TURNS)).end_ms[2] > 210.0


def test_a_full_pool_spills_to_a_longer_one() -> None:
    trace = trace_of(*[(0.0, 500, 500)] * 33)  # two servers of 16 sequences, whose KV is enough for 32
    outcome = by_length(trace, split(spill=True))
    assert (outcome.pool.tolist(), int(outcome.spilled.sum())) == ([0] * 32 + [1], 1)


def test_a_pool_without_kv_tokens_spills() -> None:
    fleet = Fleet("tight", (pool("short", 1, 1024, Slots(16, 1024)), pool("long", 1, 4096)), spill=True)
    assert by_length(trace_of((0, 500, 100), (0, 500, 100)), fleet).pool.tolist() == [0, 1]


def test_where_all_pools_are_full_a_request_waits_with_the_one_it_prefers() -> None:
    trace = trace_of(*[(0.0, 500, 500)] * 50)
    assert by_length(trace, split(spill=True)).pool.tolist() == [0] * 32 + [1] * 16 + [0] * 2


def test_a_request_that_has_ended_makes_room_again() -> None:
    trace = trace_of(*[(0.0, 500, 10)] * 32, *[(60.0, 500, 10)] * 33)
    assert by_length(trace, split(spill=True)).pool.tolist() == [0] * 64 + [1]


def test_without_spilling_a_full_pool_keeps_its_requests() -> None:
    assert by_length(trace_of(*[(0.0, 500, 500)] * 40), split()).pool.tolist() == [0] * 40


def test_an_answer_that_does_not_fit_is_cut_to_the_room_there_is() -> None:
    outcome = run(trace_of((0, 1000, 100)), split(), Always(0))
    assert (outcome.generated[0], outcome.truncated[0], outcome.misrouted[0]) == (24, True, True)


@pytest.mark.parametrize(
    ("prompt", "output"),
    [pytest.param(1024, 1, id="the prompt leaves no room"), pytest.param(10, 1025, id="the answer is too long alone")],
)
def test_a_400_is_tried_again_on_the_next_pool_where_the_verdict_says_so(prompt: int, output: int) -> None:
    trace = trace_of((0, prompt, output))
    tried, refused = run(trace, split(), Always(0, again=True)), run(trace, split(), Always(0))
    assert (tried.pool[0], tried.misrouted[0], tried.truncated[0]) == (1, True, False)
    assert refused.pool[0] == NOWHERE


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        pytest.param((), "pools are needed", id="none"),
        pytest.param((pool("a", 1, 4096), pool("b", 1, 1024)), "shortest requests first", id="wrong order"),
        pytest.param((pool("a", 1, 1024), pool("a", 1, 4096)), "same name", id="a name twice"),
        pytest.param((pool(servers=0),), "at least one server", id="no server"),
        pytest.param((pool(slots=Slots(1, 1000)),), "holds no request of 4096", id="too little KV"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(pools: tuple[object, ...], message: str) -> None:
    with pytest.raises(FleetError, match=message):
        Fleet("bad", pools)  # type: ignore[arg-type]


TRACES = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 900), st.integers(0, 300)), min_size=1, max_size=40).map(
    lambda rows: trace_of(*sorted(rows))
)
FLEETS = st.builds(
    lambda choice, spill, short, seqs: Fleet(
        "any", (pool("short", short, 600, Slots(seqs, 700)), pool("long", 1, 1200, Slots(seqs, 1300))), choice, spill
    ),
    st.sampled_from(Choice), st.booleans(), st.integers(1, 3), st.integers(1, 5),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(trace=TRACES, fleet=FLEETS)
def test_every_request_is_served_in_full_once_and_in_the_order_of_time(trace: Trace, fleet: Fleet) -> None:
    outcome = by_length(trace, fleet)
    assert not outcome.refused.any()
    assert outcome.generated.tolist() == trace.output_tokens.tolist()
    answered = trace.output_tokens > 0
    assert (outcome.first_token_ms >= outcome.arrival_ms).all()
    assert (outcome.end_ms[answered] >= outcome.first_token_ms[answered]).all()
    assert np.isfinite(outcome.end_ms).all()


@settings(max_examples=50, deadline=None)
@given(trace=TRACES, fleet=FLEETS)
def test_no_server_is_used_beyond_what_it_has(trace: Trace, fleet: Fleet) -> None:
    outcome = by_length(trace, fleet)
    for one, use in zip(fleet.pools, outcome.use, strict=True):
        most_ms = outcome.duration_ms * one.servers * (1 + 1e-9)
        assert use.busy_ms <= most_ms
        assert use.sequence_ms <= most_ms * one.slots.max_num_seqs
        assert use.kv_token_ms <= most_ms * one.slots.kv_tokens


def test_the_same_trace_gives_the_same_outcome() -> None:
    first, second = (by_length(mixed(), split(spill=True)).end_ms.tolist() for _ in range(2))
    assert first == second


def test_progress_counts_every_request() -> None:
    reported: list[int] = []
    run(mixed(5000), alone(4), Always(0), reported.append)
    assert (sum(reported), len(reported)) == (5000, 2)
