from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from extproc.cli import main
from extproc.config import ConfigError, load, warnings

EXAMPLE = Path(__file__).parents[2] / "tokenpool.yaml"
BROKEN = Path(__file__).parents[1] / "config" / "five_mistakes.yaml"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


def test_a_right_file_is_summed_up() -> None:
    result = run(str(EXAMPLE))
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert rows[0] == f"{EXAMPLE} is right: 1 model, 4 entitlements."
    assert "llama-3-8b short 1 8,192 2,400 262,144 64" in rows
    assert "llama-3-8b guaranteed 1 800 60,000 8" in rows


def test_json_of_a_right_file_has_the_sums() -> None:
    document = json.loads(run(str(EXAMPLE), "--json").stdout)
    assert document["ok"]
    model = document["models"]["llama-3-8b"]
    assert model["capacity"] == {"tokens_per_second": 3300, "kv_tokens": 786_432, "concurrency": 80}
    assert model["promised"]["guaranteed"]["tokens_per_second"] == 800
    assert model["promised"]["spot"]["tokens_per_second"] == 0


SERVERS = """
models:
  - name: m
    pools:
      short:
        endpoints: [sim://, sim://, sim://, sim://]
        max_model_len: 8192
        capacity: {tokens_per_second: 1000, kv_tokens: 100000, concurrency: 10}
      long:
        endpoints: [sim://]
        max_model_len: 65536
        capacity: {tokens_per_second: 500, kv_tokens: 200000, concurrency: 4}
identity: {header: x-tenant}
entitlements:
  - {name: d, model: m, class: dedicated, tokens_per_second: 600, kv_tokens: 10000, concurrency: 2}
  - {name: g, model: m, class: guaranteed, tokens_per_second: 600, kv_tokens: 10000, concurrency: 7}
  - {name: e, model: m, class: elastic, tokens_per_second: 900, kv_tokens: 10000, concurrency: 10}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    file = tmp_path / "fleet.yaml"
    file.write_text(SERVERS)
    return file


def test_the_servers_that_the_promises_need_stand_beside_those_configured(fleet: Path) -> None:
    rows = [line.split() for line in run(str(fleet)).stdout.splitlines()]
    table = rows[rows.index(["Servers", "for", "the", "promises"]) :]
    assert table[1:4] == [["model", "pool", "needed", "configured"], ["m", "short", "2", "4"], ["m", "long", "3", "1"]]


def test_json_has_the_servers_that_the_promises_need(fleet: Path) -> None:
    pools = json.loads(run(str(fleet), "--json").stdout)["models"]["m"]["pools"]
    assert {name: (pool["servers"], pool["servers_needed"]) for name, pool in pools.items()} == {
        "short": (4, 2),
        "long": (1, 3),
    }


def test_every_mistake_is_printed_and_the_code_is_1() -> None:
    with pytest.raises(ConfigError) as caught:
        load(BROKEN)
    result = run(str(BROKEN))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [f"tokenpool: {mistake}" for mistake in caught.value.mistakes]


def test_json_of_a_wrong_file_has_every_mistake() -> None:
    result = run(str(BROKEN), "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert not document["ok"]
    assert len(document["mistakes"]) == 5
    assert document["mistakes"][0].keys() == {"source", "line", "key", "message"}


def test_a_warning_leaves_the_code_at_0(tmp_path: Path) -> None:
    file = tmp_path / "doubtful.yaml"
    file.write_text(EXAMPLE.read_text().partition("entitlements:")[0])
    result = run(str(file))
    [doubt] = warnings(load(file))
    assert result.exit_code == 0
    assert result.stderr == f"tokenpool: {file}: warning: {doubt}\n"


def test_the_file_may_be_an_option_as_with_other_commands() -> None:
    assert run("--config", str(EXAMPLE)).stdout == run(str(EXAMPLE)).stdout
