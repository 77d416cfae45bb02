from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from extproc.cli import main

FEW = ("--like", "azure", "--requests", "300", "--rate", "5", "--no-picture")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["simulate", *arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def failure(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["simulate", *arguments])
    assert result.exit_code == 2
    return result.stderr


def test_a_fleet_is_shown_as_a_table() -> None:
    lines = run(*FEW, "--servers", "2").splitlines()
    assert lines[0].startswith("300 requests at 5")
    assert lines[2].split()[:5] == ["one", "pool", "default", "2", "300"]


def test_two_fleets_are_compared_pool_by_pool_as_json() -> None:
    document = json.loads(run(*FEW, "--servers", "3", "--pool", "long=1:65536:16", "--pool", "short=2:2048", "--json"))
    one, pools = document["fleets"]
    assert [row["pool"] for row in one["pools"]] == ["default"]
    assert [(row["pool"], row["servers"]) for row in pools["pools"]] == [("short", 2), ("long", 1), ("all", 3)]
    assert pools["pools"][2]["requests"] == one["pools"][0]["requests"] == 300


def test_the_estimate_routes_with_caution() -> None:
    fleet = ("--pool", "short=2:2048", "--pool", "long=1:65536", "--json")
    by_length, by_estimate = (
        json.loads(run(*FEW, *fleet, "--route", how))["fleets"][0]["pools"] for how in ("length", "estimate")
    )
    assert by_estimate[1]["requests"] > by_length[1]["requests"]


def test_a_seed_repeats_a_run_and_speed_compresses_it() -> None:
    fleet = ("--servers", "2", "--json")
    first, again, fast = (json.loads(run(*FEW, *fleet, *more)) for more in ((), (), ("--speed", "4")))
    assert first == again
    assert fast["requests_per_second"] == pytest.approx(4 * first["requests_per_second"])


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    arguments = [one for one in FEW if one != "--no-picture"]
    text = run(*arguments, "--servers", "2", "--pool", "a=1:2048", "--pool", "b=1:65536", "--out", str(tmp_path))
    assert f"Picture: {tmp_path / 'simulate.png'}" in text
    assert (tmp_path / "simulate.png").read_bytes().startswith(b"\x89PNG")


def test_fleets_of_as_many_servers_are_compared_at_several_loads(tmp_path: Path) -> None:
    arguments = [*FEW[:-1], "--servers", "3", "--loads", "0.5,1.0", "--threshold", "2048", "--processes", "1", "--json"]
    document = json.loads(run("compare", *arguments, "--out", str(tmp_path)))
    assert [row["load"] for row in document["rows"]] == [0.5] * 3 + [1.0] * 3
    assert {row["servers"] for row in document["rows"]} == {3}
    assert [row["fleet"].partition(" at ")[2] for row in document["rows"][2::3]] == ["2,048, 128 and 16 sequences"] * 2
    assert (tmp_path / "simulate-compare.png").exists()


def test_the_papers_savings_are_simulated(tmp_path: Path) -> None:
    arguments = ("--requests", "1000", "--rate", "20", "--processes", "1", "--out", str(tmp_path))
    lines = run("papers", *arguments).splitlines()
    assert [line.split("  ")[0] for line in lines[2:8]] == ["azure"] * 3 + ["lmsys"] * 3
    assert (tmp_path / "simulate-papers.png").exists()


def test_times_may_come_from_a_file(tmp_path: Path) -> None:
    rows = ["llama,a100,8,512,1,128,50,20", "llama,a100,8,512,64,128,50,20"]
    columns = "model,hardware,tensor_parallel,prompt_size,batch_size,token_size,prompt_time,token_time"
    (tmp_path / "perf.csv").write_text("\n".join([columns, *rows]))
    machine = ("--measured", f"{tmp_path / 'perf.csv'}:llama:a100:8")
    text = run(*FEW, "--rate", "0.01", "--servers", "2", *machine, "--json")  # each alone on its server
    assert json.loads(text)["fleets"][0]["pools"][0]["tpot_p50_ms"] == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(FEW, "name a fleet with --servers", id="no fleet"),
        pytest.param((*FEW, "--pool", "short=2"), "'short=2' is not NAME=SERVERS", id="pool without a length"),
        pytest.param((*FEW, "--pool", "a=1:2048:0"), "room for at least one sequence", id="pool without sequences"),
        pytest.param((*FEW, "--pool", "a=1:99999:8:5000"), "vLLM would not start", id="KV below the length"),
        pytest.param((*FEW, "--pool", "a=1:9:1", "--pool", "a=1:8:1"), "same name", id="a name twice"),
        pytest.param(("--servers", "1", "--no-picture"), "name the requests with one of", id="no trace"),
        pytest.param((*FEW, "--servers", "1", "--measured", "perf.csv"), "is not FILE:MODEL", id="no machine"),
        pytest.param(("compare", *FEW, "--loads", "half"), "is not like 0.5,0.9,1.0", id="loads"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(arguments: tuple[str, ...], message: str) -> None:
    assert message in failure(*arguments)
