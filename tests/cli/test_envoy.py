from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from extproc.cli import main

EXAMPLE = str(Path(__file__).parents[2] / "tokenpool.yaml")
SERVERS = ("--server", "llama-3-8b/short=http://10.1.2.3:8101", "--server", "llama-3-8b/long=http://10.1.2.4:8102")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["envoy", "--config", EXAMPLE, *SERVERS, *arguments])
    assert result.exit_code == 0, result.stderr
    return result


def test_the_configuration_is_printed_with_the_addresses_asked_for() -> None:
    text = run("--sidecar", "10.9.9.9:50051", "--workers", "2", "--port", "18080", "--admin-port", "19901").stdout
    document = YAML(typ="safe", pure=True).load(text)
    assert document["admin"]["address"]["socket_address"]["port_value"] == 19901
    assert all(part in text for part in ("10.1.2.3", "10.1.2.4", "10.9.9.9", "50051", "50052", "18080"))


def test_the_configuration_is_written_for_envoy_to_follow(tmp_path: Path) -> None:
    result = run("--workers", "1", "--output", str(tmp_path / "new"))
    assert result.stdout == f"Start Envoy with: envoy -c {tmp_path / 'new' / 'bootstrap.yaml'}\n"
    assert (tmp_path / "new" / "cds.yaml").exists()


def test_a_directory_that_cannot_be_written_is_named() -> None:
    result = CliRunner().invoke(main, ["envoy", "--config", EXAMPLE, *SERVERS, "--output", "/dev/null/x"])
    assert result.exit_code == 1
    assert result.stderr.startswith("tokenpool: /dev/null/x: ")
