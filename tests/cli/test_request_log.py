from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from extproc.cli import main

EXAMPLE = Path(__file__).parents[2] / "tokenpool.yaml"
ANY_PORT = ["--admin-port", "0"]
COMMANDS = [
    pytest.param(["serve", "--redis", "redis://127.0.0.1:1", "--listen", "unix:/tmp/tokenpool-none.sock"], id="serve"),
    pytest.param(["up", "--port", "0", "--envoy-admin-port", "0"], id="up"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_request_log_that_cannot_be_written_is_said_before_anything_starts(
    command: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "missing" / "requests.jsonl"
    arguments = [*command, "--config", str(EXAMPLE), *ANY_PORT, "--request-log", str(log)]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr) == (1, f"tokenpool: {log}: No such file or directory\n")
