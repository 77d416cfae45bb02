from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from extproc.cli import main
from extproc.cli.plan_options import as_options
from extproc.planning.measuring import Measured
from extproc.sim.timing import MEASURED

QUICK = ("--requests", "3000", "--no-simulate")
REPOSITORY = Path(__file__).parents[2]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments])


def plan_of(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def azure_file() -> Path:
    folder = os.environ.get("TOKENPOOL_TRACES")
    name = "AzureLLMInferenceTrace_conv.csv"
    return (Path(folder) if folder else REPOSITORY.parent / "shared" / "data") / name


def test_a_plan_in_tables_ends_with_its_verdict_and_what_to_paste() -> None:
    result = run("--like", "azure", "--rate", "50", *QUICK)
    assert result.exit_code == 0, result.output
    for heading in ("Servers for 50 requests/s", "Savings of a split at", "A year", "Sensitivity, at"):
        assert heading in result.stdout
    assert "\nSplit at " in result.stdout or "\nDo not split: " in result.stdout
    assert "\npools:\n" in result.stdout


def test_the_simulator_judges_unless_told_otherwise() -> None:
    result = run("--like", "azure", "--rate", "5", "--requests", "1000")
    assert "In the simulator, 1,000 requests: split saves " in result.stdout
    assert plan_of("--like", "azure", "--rate", "10", *QUICK)["simulated"] is None


def test_the_json_has_what_the_tables_have() -> None:
    plan = plan_of("--like", "lmsys", "--rate", "200", "--ttft-p99-ms", "3000", "--price", "1", *QUICK)
    assert plan["mixed"]["dollars_a_year"] == plan["mixed"]["servers"] * 8 * 8760
    assert plan["best"]["closed_form"].keys() == plan["best"]["whole_servers"].keys() == {"uncorrected", "corrected"}
    assert {one["threshold"] for one in plan["thresholds"]} >= {plan["best"]["threshold"]}
    assert plan["configuration"].startswith("pools:")


def test_servers_at_a_low_rate_are_not_split() -> None:
    plan = plan_of("--like", "azure", "--rate", "0.5", *QUICK)
    assert plan["split"] is False
    assert plan["verdict"].startswith("Do not split: ")
    assert list(plan["mixed"]["pools"]) == ["default"]


def test_a_picture_is_drawn_where_asked_for(tmp_path: Path) -> None:
    result = run("--like", "azure", "--rate", "20", "--out", str(tmp_path / "new"), *QUICK)
    path = tmp_path / "new" / "plan.png"
    assert f"Picture: {path}" in result.stdout
    assert path.read_bytes().startswith(b"\x89PNG")


def test_figures_that_are_given_are_used() -> None:
    like = ("--like", "azure", "--rate", "50", "--threshold", "4096", *QUICK)
    fast = plan_of(*like, "--prefill-ms", "1:5,8192:500", "--decode-ms", "1:10,64:20")
    assert fast["best"]["threshold"] == 4096
    assert fast["mixed"]["servers"] < plan_of(*like)["mixed"]["servers"]
    assert plan_of(*like, "--timing", "h100")["mixed"]["servers"] < plan_of(*like)["mixed"]["servers"]


def test_known_rates_give_the_formulas_alone() -> None:
    forms = plan_of("--server-rates", "1,2", "--short-share", "0.5", "--rate", "0.5")
    assert forms["whole_servers"]["corrected"] == {"mixed": 1, "short": 1, "long": 1, "saving": -1.0}
    assert forms["closed_form"]["corrected"] == 0.25
    assert forms["verdict"].startswith("Do not split: ")


def test_known_rates_take_their_share_from_lengths() -> None:
    forms = plan_of("--server-rates", "2.8,11.2", "--like", "lmsys", "--rate", "1000", "--threshold", "2048")
    assert forms["short_share"] == pytest.approx(0.948, abs=0.01)
    assert forms["closed_form"]["corrected"] < forms["closed_form"]["uncorrected"]


def test_known_rates_in_a_table() -> None:
    result = run("--server-rates", "2.8,11.2,1.4", "--short-share", "0.95", "--rate", "1000")
    assert result.stdout.splitlines()[-1] == "Split: 85 + 36 servers instead of 358, 66.2% fewer."
    assert "rho -20%" in result.stdout


def test_the_papers_are_beside_what_is_computed() -> None:
    rows = {row["what"]: row["savings"] for row in plan_of("--papers")["rows"]}
    assert rows["published in B (2604.09613)"]["azure"] == 0.166


@pytest.mark.skipif(not azure_file().exists(), reason="the trace is not here")
def test_a_published_trace_is_planned_for() -> None:
    plan = plan_of("--trace", str(azure_file()), "--no-simulate")
    assert plan["requests_per_second"] == pytest.approx(5.5, abs=0.1)
    assert plan["mixed"]["servers"] >= 3


def test_the_sidecars_own_log_is_planned_for(tmp_path: Path) -> None:
    log = tmp_path / "requests.log"
    line = '{{"time": {}, "entitlement": "a", "source": "usage", "prompt_tokens": {}, "completion_tokens": 50}}\n'
    log.write_text("".join(line.format(number / 10, 100 + number * 37 % 3000) for number in range(500)))
    plan = plan_of("--trace", str(log), "--no-simulate")
    assert plan["requests_per_second"] == pytest.approx(10)


def test_what_was_measured_can_be_given_again() -> None:
    said = as_options(Measured("m", 8192, MEASURED["a100"], 64, 100_000)).split()
    again = plan_of("--like", "azure", "--rate", "10", "--threshold", "4096", *QUICK, *said)
    limits = ("--max-model-len", "8192", "--kv-tokens", "100000", "--gpus-per-server", "1")
    known = plan_of("--like", "azure", "--rate", "10", "--threshold", "4096", *QUICK, "--timing", "a100", *limits)
    assert again["mixed"]["servers"] == known["mixed"]["servers"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--rate", "5"), "name the requests with one of --trace, --like and --quantiles"),
        (("--trace", "none.csv"), "File 'none.csv' does not exist"),
        (("--like", "azure", "--rate", "0"), "0.0 is not in the range x>0"),
        (("--like", "azure", "--requests", "1"), "is too short to tell its rate: give --rate"),
        (("--like", "azure", "--burstiness", "2"), "`tokenpool simulate` knows --burstiness"),
        (("--like", "azure", "--ttft-p99-ms", "100"), "even alone on a server, only to read their prompts"),
        (("--like", "azure", "--threshold", "65536"), "--threshold 65,536 is not below --max-model-len 65,536"),
        (("--like", "azure", "--kv-tokens", "9000"), "holds no request of --max-model-len 65,536"),
        (("--like", "azure", "--decode-ms", "64:1,1:2"), "is not like 1:45,64:72, with ascending numbers"),
        (("--like", "azure", "--decode-ms", "fast"), "--decode-ms 'fast' is not like 1:45,64:72"),
        (("--like", "azure", "--measure", "http://127.0.0.1:9"), "http://127.0.0.1:9: Cannot connect to host"),
        (("--like", "azure", "--measure", "http://x", "--timing", "h100"), "give one or the other"),
        (("--server-rates", "1", "--rate", "1", "--short-share", "0.5"), "is not like 2.8,11.2 or 2.8,11.2,1.4"),
        (("--server-rates", "1,0", "--rate", "1", "--short-share", "0.5"), "--server-rates must be above 0"),
        (("--server-rates", "1,2", "--short-share", "0.5"), "--server-rates needs --rate"),
        (("--short-share", "0.5", "--like", "azure"), "--short-share goes with --server-rates"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(arguments: tuple[str, ...], complaint: str) -> None:
    result = run(*arguments)
    assert result.exit_code in {1, 2}
    [line] = result.stderr.splitlines()
    assert line.startswith("tokenpool: ")
    assert complaint in line


def test_a_bad_column_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("TIMESTAMP,ContextTokens\n2023-11-16 18:17:03,5\n")
    assert (
        f"{path}, line 1: expected the columns TIMESTAMP, ContextTokens, GeneratedTokens"
        in run("--trace", str(path)).stderr
    )


def test_requests_that_no_server_takes_are_told() -> None:
    result = run("--like", "lmsys", "--rate", "10", "--max-model-len", "4096", *QUICK)
    assert "of the requests are longer than 4,096 tokens and left out" in result.stderr
