"""envoy/envoy.yaml is what the command prints for envoy/tokenpool.compose.yaml."""

from __future__ import annotations

from click.testing import CliRunner

from extproc.cli import main
from tests.compose.services import CONFIG, ENVOY_CONFIG

OPTIONS = ("--host", "0.0.0.0", "--sidecar", "sidecar:50051", "--workers", "2")


def test_the_file_is_fresh() -> None:
    printed = CliRunner().invoke(main, ["envoy", "--config", str(CONFIG), *OPTIONS])
    assert printed.exit_code == 0, printed.output
    command = f"tokenpool envoy --config envoy/tokenpool.compose.yaml {' '.join(OPTIONS)} > envoy/envoy.yaml"
    assert ENVOY_CONFIG.read_text() == printed.stdout, f"run: make envoy, that is: {command}"
