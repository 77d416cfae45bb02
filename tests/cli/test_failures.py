"""What users can get wrong: the exit code, and one line that says what to do."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from extproc.cli import main

EXAMPLE = str(Path(__file__).parents[2] / "tokenpool.yaml")
BROKEN = str(Path(__file__).parents[1] / "config" / "five_mistakes.yaml")
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield str(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["bogus"], 2, r"No such command 'bogus'; see `tokenpool --help`"),
        (["serve", "--bogus"], 2, r"No such option.*--bogus.*; see `tokenpool serve --help`"),
        (["serve", "--workers", "0"], 2, r"'--workers': 0 is not in the range"),
        (["serve", "--listen", "nowhere"], 2, r"'nowhere' is no address; give host:port or unix:/path"),
        (["serve", "--config", EXAMPLE], 1, r"names no Redis; add `redis:` to it, give --redis URL, or use"),
        (["serve", "--config", "missing.yaml"], 1, r"missing.yaml: cannot be read: No such file or directory"),
        (["up", "--config", "missing.yaml"], 1, r"missing.yaml: cannot be read: No such file or directory"),
        (["up", "--config", "/"], 1, r"/: cannot be read: Is a directory"),
        (["up", "--port", "65536"], 2, r"'--port': 65536 is not in the range"),
        (["envoy", "--config", EXAMPLE], 1, r"is simulated .* --server MODEL/POOL=http://HOST:PORT"),
        (["envoy", "--config", EXAMPLE, "--server", "x"], 2, r"--server 'x' is not MODEL/POOL=http://HOST:PORT"),
        (["status", "--admin-url", NOWHERE], 1, r"nothing answers at http://127.0.0.1:1 \(Connection refused\); start"),
        (["status", "--admin-url", "file:///etc/passwd"], 2, r"no http:// or https:// URL"),
        (["sim", "--url", "http://x"], 2, r"does not begin with sim://"),
        (["sim", "--url", "sim://?sped=1"], 2, r"unknown parameter sped .*; known: speed"),
        (["sim", "--url", "sim://?speed=1", "--speed", "2"], 2, r"given twice"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else None,
)
def test_a_failure_is_one_line_on_stderr(arguments: list[str], exit_code: int, message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("tokenpool: ")
    assert re.search(message, line)


@pytest.mark.parametrize("command", ["serve", "up", "envoy"])
def test_every_mistake_of_the_configuration_is_shown(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--config", BROKEN])
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 5
    assert all(line.startswith(f"tokenpool: {BROKEN}:") for line in result.stderr.splitlines())


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["up", "--config", EXAMPLE, "--port"], "--port"),
        (["up", "--config", EXAMPLE, "--port", "0", "--admin-port"], "--admin-port"),
        (["up", "--config", EXAMPLE, "--port", "0", "--admin-port", "0", "--envoy-admin-port"], "--envoy-admin-port"),
        (["sim", "--port"], "--port"),
    ],
    ids=["up", "admin", "envoy admin", "sim"],
)
def test_a_taken_port_is_named_with_its_option(arguments: list[str], option: str, taken_port: str) -> None:
    result = CliRunner().invoke(main, [*arguments, taken_port])
    assert (result.exit_code, result.stdout) == (1, "")
    expected = f"tokenpool: port {taken_port} is taken; stop what listens there or choose another with {option}\n"
    assert result.stderr == expected


def test_a_program_whose_reader_leaves_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "extproc.cli", "key"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert "Traceback" not in done.stderr


def test_a_real_process_ends_with_the_code_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "extproc.cli", "check", "missing.yaml"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "tokenpool: missing.yaml: cannot be read: No such file or directory\n"
