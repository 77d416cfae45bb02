from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from extproc.traces.trace import Trace, TraceError

TRACE = Trace(
    "three",
    np.array([0.0, 1.0, 4.0]),
    np.array([10, 20, 30]),
    np.array([1, 2, 3]),
    np.array([0, 1, 0]),
    ("a", "b"),
)


def test_a_traces_rate_is_that_of_its_gaps() -> None:
    assert (TRACE.requests, TRACE.duration_s, TRACE.requests_per_second) == (3, 4.0, 0.5)
    assert TRACE.total_tokens.tolist() == [11, 22, 33]


def test_another_rate_changes_the_gaps_alone() -> None:
    faster = TRACE.at_rate(2.0)
    assert faster.arrival_s.tolist() == [0.0, 0.25, 1.0]
    assert faster.requests_per_second == 2.0
    assert (faster.total_tokens.tolist(), faster.clients) == (TRACE.total_tokens.tolist(), TRACE.clients)


def test_requests_that_come_at_once_have_no_rate_to_change() -> None:
    with pytest.raises(TraceError, match="at once"):
        replace(TRACE, arrival_s=np.zeros(3)).at_rate(1.0)


def test_the_first_requests_are_a_trace_of_their_own() -> None:
    part = TRACE.first(2)
    assert part.arrival_s.tolist() == [0.0, 1.0]
    assert (part.prompt_tokens.tolist(), part.output_tokens.tolist()) == ([10, 20], [1, 2])
    assert part.client.tolist() == [0, 1]
    assert TRACE.first(9).requests == 3
