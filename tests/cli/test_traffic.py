from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from extproc.cli.failures import OneLineGroup
from extproc.cli.traffic import Traffic, load_traffic, traffic_options
from tests.traces.files import ARENA_HEAD, file


@click.group(cls=OneLineGroup)
def main() -> None: ...


@main.command()
@traffic_options
@click.option("--other", default=7)
def show(*, traffic: Traffic, other: int) -> None:
    """A command of any kind."""
    trace = load_traffic(traffic)
    sums = int(trace.prompt_tokens.sum()), int(trace.output_tokens.sum())
    click.echo(f"{trace.source}: {trace.requests} at {trace.requests_per_second:.1f}, {sums}, {other}")


def shown(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["show", *map(str, arguments)])


@pytest.fixture
def arena(tmp_path: Path) -> Path:
    return file(tmp_path / "a.csv", ARENA_HEAD, "0,a,1,10", "1,b,2,20", "2,a,4,40")


def test_a_trace_is_taken_as_it_came(arena: Path) -> None:
    assert shown("--trace", arena).stdout == "arena trace (a.csv): 3 at 1.0, (7, 70), 7\n"


def test_files_may_be_several(arena: Path, tmp_path: Path) -> None:
    more = file(tmp_path / "b.csv", ARENA_HEAD, "4,c,100,1000")
    assert "4 at 0.8, (107, 1070)" in shown("--trace", arena, "--trace", more).stdout


def test_a_traces_number_and_rate_may_be_changed(arena: Path) -> None:
    assert "2 at 5.0, (3, 30), 8" in shown("--trace", arena, "--requests", "2", "--rate", "5", "--other", "8").stdout


@pytest.mark.parametrize("name", ["azure", "lmsys"])
def test_requests_like_published_ones_are_drawn(name: str) -> None:
    first, again, other = (shown("--like", name, "--requests", "50", "--seed", seed).stdout for seed in "112")
    assert ": 50 at" in first
    assert first == again
    assert first.partition(": ")[2] != other.partition(": ")[2]


def test_without_a_number_a_hundred_thousand_are_drawn() -> None:
    assert ": 100000 at 100." in shown("--like", "azure").stdout or ": 100000 at 99." in shown("--like", "azure").stdout


def test_gaps_may_be_those_of_a_metronome() -> None:
    assert "50 at 4.0" in shown("--like", "lmsys", "--requests", "50", "--rate", "4", "--burstiness", "0").stdout


def test_ones_own_quantiles_need_the_length_of_an_answer(tmp_path: Path) -> None:
    path = file(tmp_path / "q.csv", "100,0.5", "200,1")
    assert "q.csv, seed 0: 10 at" in shown("--quantiles", path, "--output-tokens", "30", "--requests", "10").stdout
    assert "--quantiles needs --output-tokens" in shown("--quantiles", path).stderr


def test_what_nobody_counted_is_said(tmp_path: Path) -> None:
    line = '{"time": %d, "entitlement": "e", "source": "%s", "prompt_tokens": 1, "completion_tokens": 1}'
    path = file(tmp_path / "log", line % (1, "usage"), line % (2, "expired"), line % (3, "usage"))
    result = shown("--trace", path)
    assert "2 at 0.5" in result.stdout
    assert "1 request" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "one of --trace, --like and --quantiles", id="nothing"),
        pytest.param(["--like", "azure", "--trace", "A"], "one of --trace, --like", id="two"),
        pytest.param(["--trace", "A", "--burstiness", "2"], "not for those of --trace", id="burstiness of a trace"),
        pytest.param(["--trace", "A", "--requests", "1", "--rate", "5"], "no rate to change", id="rate of one request"),
        pytest.param(["--trace", "A", "--trace", "BAD"], "BAD, line 1: expected", id="no trace"),
        pytest.param(["--like", "azure", "--output-tokens", "5000"], "do not fit", id="answers too long"),
        pytest.param(["--like", "azure", "--rate", "0"], "0", id="no rate"),
    ],
)
def test_a_mistake_is_one_line(arena: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    bad = file(tmp_path / "BAD", "what is this")
    result = shown(*(str({"A": arena, "BAD": bad}.get(one, one)) for one in arguments))
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
