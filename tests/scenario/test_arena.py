from __future__ import annotations

from pathlib import Path

import pytest

from extproc.scenario.arena import read
from extproc.traces.trace import TraceError
from tests.scenario.traces import uneven, write

HEAD = "req_time_s,client,input_tokens,output_tokens\n"


def test_a_trace_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(f"{HEAD}2.5,b,10,20\n0.5,a,1,2\n")
    asks = read(path)
    assert [(ask.at_ms, ask.client, ask.prompt_tokens, ask.output_tokens) for ask in asks] == [
        (500, "a", 1, 2),
        (2500, "b", 10, 20),
    ]
    assert len({ask.id for ask in asks}) == 2


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    asks = uneven(10)
    again = read(write(tmp_path / "trace.csv", asks))
    assert [(a.client, a.prompt_tokens, a.output_tokens) for a in again] == [
        (a.client, a.prompt_tokens, a.output_tokens) for a in asks
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "expected the columns", id="empty"),
        pytest.param("time,client\n1,a\n", "expected the columns req_time_s", id="other columns"),
        pytest.param(HEAD, "no requests", id="no rows"),
        pytest.param(f"{HEAD}1,a,2,3\nsoon,a,2,3\n", "line 3", id="no number"),
        pytest.param(f"{HEAD}1,a,2\n", "line 2", id="a column is missing"),
        pytest.param(f"{HEAD}-1,a,2,3\n", "line 2: times and tokens must be positive", id="before the beginning"),
        pytest.param(f"{HEAD}nan,a,2,3\n", "line 2", id="no time"),
        pytest.param(f"{HEAD}1,a,0,3\n", "line 2: times and tokens must be positive", id="no prompt"),
        pytest.param(f"{HEAD}1,a,4000,97\n", "line 2: more than 4096 tokens", id="larger than the model takes"),
    ],
)
def test_what_is_no_trace_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value)
