from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.scenario.outcomes import Ending, latency, longest_gap, percentile, share_within, summary
from tests.scenario.records import outcome, refused


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    ascending = sorted(values)
    found = percentile(ascending, percent)
    assert sum(1 for value in ascending if value <= found) >= len(ascending) * percent / 100 - 1e-9
    below = [value for value in ascending if value < found]
    assert not below or len(below) < len(ascending) * percent / 100 + 1e-9


def test_latencies_are_those_of_served_requests() -> None:
    found = latency([outcome(first_token=0.2), outcome(first_token=0.1), refused()])
    assert found is not None
    assert (found.p50, found.p99, found.at_least) == (0.1, 0.2, False)


def test_who_still_waits_at_the_end_counts_with_what_he_has_waited_and_is_said_to() -> None:
    waiting = outcome(first_token=None, end=30.0, ending=Ending.UNFINISHED)
    found = latency([outcome(first_token=0.1), waiting])
    assert found is not None
    assert (found.p99, found.at_least) == (30.0, True)


def test_where_nobody_was_served_there_is_no_latency() -> None:
    assert latency([refused()]) is None


def test_refused_requests_count_against_the_share_in_time() -> None:
    own = [outcome(first_token=0.4), outcome(first_token=0.6), refused(), outcome(first_token=0.5)]
    assert share_within(own, 0.5) == 0.5


def test_the_longest_gap_begins_and_ends_with_the_time_looked_at() -> None:
    own = [outcome(at=at, first_token=0.5) for at in (3.5, 5.5, 99.0)]
    assert longest_gap(own, 0.0, 10.0) == pytest.approx(4.0)
    assert longest_gap([], 0.0, 10.0) == 10.0


def test_a_summary_counts_one_tenants_requests_by_their_end() -> None:
    broken = outcome(ending=Ending.BROKEN_OFF, tokens=4)
    found = summary("guaranteed", [outcome(), broken, refused(), outcome("other")])
    assert (found.sent, found.tokens, found.tokens_of_finished) == (3, 14, 10)
    assert found.endings == {Ending.DONE: 1, Ending.BROKEN_OFF: 1, Ending.REFUSED: 1}
    assert found.reasons == {"concurrency": 1}
