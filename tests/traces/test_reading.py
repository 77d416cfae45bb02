from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.traces.reading import read
from extproc.traces.trace import Trace, TraceError
from tests.traces.files import ARENA_HEAD, AZURE_HEAD, file
from tests.traces.published import where

DAY = "2023-11-16 18:15:"
AZURE_CODE, AZURE_CONV = map(where, ("AzureLLMInferenceTrace_code.csv", "AzureLLMInferenceTrace_conv.csv"))
ARENA_FILE = where("vtc_lmsys_arena_trace.csv")
needs_azure = pytest.mark.skipif(not AZURE_CODE.exists(), reason="the published traces are not here")
needs_arena = pytest.mark.skipif(not ARENA_FILE.exists(), reason="the published traces are not here")


def settled(time: float, prompt: int = 10, output: int = 5, **more: object) -> str:
    return json.dumps(
        {"time": time, "entitlement": "acme", "source": "usage", "prompt_tokens": prompt, "completion_tokens": output}
        | more
    )


def rows(trace: Trace) -> list[tuple[float, int, int, str]]:
    return [
        (round(at, 6), prompt, output, trace.clients[client])
        for at, prompt, output, client in zip(
            trace.arrival_s.tolist(),
            trace.prompt_tokens.tolist(),
            trace.output_tokens.tolist(),
            trace.client.tolist(),
            strict=True,
        )
    ]


def test_azures_trace_begins_with_its_first_request(tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", AZURE_HEAD, f"{DAY}46.6805900,374,44", f"{DAY}47.1805900,396,109")
    assert rows(read([path])) == [(0.0, 374, 44, ""), (0.5, 396, 109, "")]


@pytest.mark.parametrize("stamp", ["2024-05-10 00:00:00.009930+00:00", "2024-05-10T00:00:00Z", "2024-05-10 00:00:00"])
def test_azures_times_may_have_a_zone(tmp_path: Path, stamp: str) -> None:
    assert read([file(tmp_path / "a.csv", AZURE_HEAD, f"{stamp},1,2")]).requests == 1


def test_files_of_one_format_are_merged_by_time(tmp_path: Path) -> None:
    first = file(tmp_path / "code.csv", AZURE_HEAD, f"{DAY}02,2,20", f"{DAY}04,4,40")
    second = file(tmp_path / "conv.csv", AZURE_HEAD, f"{DAY}01,1,10", f"{DAY}03,3,30")
    trace = read([first, second])
    assert rows(trace) == [(0, 1, 10, ""), (1, 2, 20, ""), (2, 3, 30, ""), (3, 4, 40, "")]
    assert "code.csv + conv.csv" in trace.source


def test_the_arenas_trace_has_a_clock_and_clients_of_its_own(tmp_path: Path) -> None:
    trace = read([file(tmp_path / "a.csv", ARENA_HEAD, "2.5,b,10,20", "0.5,a,1,2", "3,b,7,8")])
    assert rows(trace) == [(0.5, 1, 2, "a"), (2.5, 10, 20, "b"), (3, 7, 8, "b")]


def test_columns_may_come_in_any_order_and_with_others(tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", "GeneratedTokens,Region,TIMESTAMP,ContextTokens", f"44,eu,{DAY}46,374")
    assert rows(read([path])) == [(0, 374, 44, "")]


def test_a_request_log_is_read_by_entitlement_and_others_than_usage_are_counted(tmp_path: Path) -> None:
    path = file(
        tmp_path / "log.jsonl",
        settled(1000.5, 20, 30, entitlement="bolt"),
        settled(1000.0),
        settled(1000.2, source="expired"),
        settled(1000.3, 0, 0, source="nothing"),
        settled(1000.4, 7, 0),
    )
    trace = read([path])
    assert rows(trace) == [(0, 10, 5, "acme"), (0.4, 7, 0, "acme"), (0.5, 20, 30, "bolt")]
    assert trace.left_out == 2


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([AZURE_HEAD, f"{DAY}01,374,44"], (0, 374, 44, ""), id="azure"),
        pytest.param([ARENA_HEAD, "1,a,374,44"], (1, 374, 44, "a"), id="arena"),
        pytest.param([settled(5, 374, 44)], (0, 374, 44, "acme"), id="log"),
    ],
)
def test_a_file_of_another_system_is_read_alike(
    tmp_path: Path, ends: str, mark: bytes, lines: list[str], expected: tuple[float, int, int, str]
) -> None:
    path = tmp_path / "trace"
    path.write_bytes(mark + ends.join([*lines, ""]).encode())
    assert rows(read([path])) == [expected]


def test_a_gzipped_file_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(f"{AZURE_HEAD}\n{DAY}01,374,44\n".encode()))
    assert rows(read([path])) == [(0, 374, 44, "")]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param([], "line 1: expected the columns TIMESTAMP", id="empty file"),
        pytest.param(["time,prompt", "1,2"], "line 1: expected the columns TIMESTAMP", id="unknown format"),
        pytest.param([AZURE_HEAD], "no requests", id="no rows"),
        pytest.param([AZURE_HEAD, "today,1,2"], "line 2: expected a time like", id="no time"),
        pytest.param([AZURE_HEAD, f"{DAY}01,1,2", f"{DAY}01,,2"], "line 3: .*found .*01,,2", id="empty cell"),
        pytest.param([AZURE_HEAD, f"{DAY}01,1"], "line 2: expected", id="missing cell"),
        pytest.param([AZURE_HEAD, f"{DAY}01,1.5,2"], "line 2: expected .* whole numbers", id="broken number"),
        pytest.param([AZURE_HEAD, f"{DAY}01,nan,2"], "line 2: expected", id="no number"),
        pytest.param([AZURE_HEAD, f"{DAY}01,-1,2"], "line 2: times and tokens must be positive", id="negative"),
        pytest.param([AZURE_HEAD, f"{DAY}01,1,-2"], "line 2: times and tokens must be positive", id="negative output"),
        pytest.param([AZURE_HEAD, f"{DAY}01,1,99999999999"], "line 2: more than", id="absurd"),
        pytest.param([ARENA_HEAD, "nan,a,1,2"], "line 2: times and tokens must be positive", id="arena, no time"),
        pytest.param([ARENA_HEAD, "inf,a,1,2"], "line 2: times and tokens must be positive", id="arena, endless"),
        pytest.param([ARENA_HEAD, "1,a,1,0"], "line 2: expected seconds", id="arena, empty answer"),
        pytest.param([settled(1), "{"], "line 2: expected a line of the request log", id="log, torn line"),
        pytest.param([settled(1), '{"time": 1}'], "line 2: .*missing required field", id="log, no lengths"),
        pytest.param([settled(1, -3)], "line 1: times and tokens must be positive", id="log, negative"),
        pytest.param([settled(1, source="nothing")], "no requests; rows whose .*: 1", id="log, nothing counted"),
    ],
)
def test_nonsense_is_said_with_its_file_and_line(tmp_path: Path, lines: list[str], said: str) -> None:
    path = file(tmp_path / "trace", *lines)
    with pytest.raises(TraceError, match=said) as caught:
        read([path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.csv", b"\xff\xfe\x00", id="not UTF-8"),
        pytest.param("a.csv.gz", b"TIMESTAMP", id="not gzipped"),
        pytest.param("a.csv.gz", gzip.compress(b"TIMESTAMP,ContextTokens,GeneratedTokens\n" * 9)[:-9], id="cut off"),
        pytest.param("a.csv", f"{AZURE_HEAD}\n".encode() + b"x" * 100_000 + b"\xff", id="not UTF-8 further down"),
    ],
)
def test_what_is_no_text_is_said_with_its_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TraceError, match="expected text in UTF-8") as caught:
        read([path])
    assert str(path) in str(caught.value)


def test_files_of_two_formats_are_not_one_trace(tmp_path: Path) -> None:
    first = file(tmp_path / "a.csv", AZURE_HEAD, f"{DAY}01,1,2")
    second = file(tmp_path / "b.csv", ARENA_HEAD, "1,a,1,2")
    with pytest.raises(TraceError, match=r"b\.csv: expected the columns TIMESTAMP.* as in .*a\.csv"):
        read([first, second])


def test_no_file_is_no_trace() -> None:
    with pytest.raises(TraceError, match="no file"):
        read([])


ROWS = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 10**5), st.sampled_from("abc")), min_size=1
)


@settings(deadline=None)
@given(parts=st.lists(ROWS, min_size=1, max_size=3))
def test_every_row_of_every_file_is_in_the_trace_in_the_order_of_time(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[int, int, int, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    paths = [
        file(
            folder / f"{number}.csv", ARENA_HEAD, *(f"{at},{who},{prompt},{output}" for at, prompt, output, who in part)
        )
        for number, part in enumerate(parts)
    ]
    trace = read(paths)
    assert sorted(rows(trace)) == sorted(row for part in parts for row in part)
    assert np.all(np.diff(trace.arrival_s) >= 0)


@needs_azure
def test_azures_files_have_the_lengths_that_were_published_of_them() -> None:
    trace = read([AZURE_CODE, AZURE_CONV])
    total = trace.total_tokens
    assert (trace.requests, int(total.max())) == (28_185, 14_089)
    assert float(np.mean(total <= 2048)) == pytest.approx(0.779847, abs=1e-6)
    assert float(np.mean(total <= 8192)) == pytest.approx(0.999965, abs=1e-6)
    assert trace.duration_s == pytest.approx(3513, abs=1)


@needs_arena
def test_the_arenas_file_has_the_clients_that_were_published_of_it() -> None:
    trace = read([ARENA_FILE])
    assert (trace.requests, len(trace.clients)) == (1500, 27)
    assert trace.prompt_tokens.mean() == pytest.approx(136, abs=1)
    assert trace.output_tokens.mean() == pytest.approx(256, abs=1)
