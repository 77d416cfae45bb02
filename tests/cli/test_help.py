from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from extproc.cli import main

SHOWN = [name for name, command in main.commands.items() if not command.hidden]


def test_the_commands_are_these() -> None:
    assert sorted(SHOWN) == [
        *("bench", "check", "envoy", "key", "plan", "scenario", "serve", "sim", "simulate", "status", "up")
    ]


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"tokenpool {version('tokenpool')}\n"


@pytest.mark.parametrize("name", SHOWN)
def test_the_help_of_a_command_has_an_example(name: str) -> None:
    text = CliRunner().invoke(main, [name, "--help"]).stdout
    assert "Example" in text
    examples = text.partition("Example")[2].splitlines()
    assert [line for line in examples if line.startswith("    ") and f"tokenpool {name}" in line]


@pytest.mark.parametrize("name", SHOWN)
def test_every_command_has_a_short_help_that_is_not_cut(name: str) -> None:
    short = main.commands[name].get_short_help_str()
    assert short
    assert not short.endswith("...")


def test_nothing_but_click_is_imported_for_all_commands() -> None:
    heavy = "{'rich', 'aiohttp', 'pydantic', 'grpc', 'envoy_data_plane', 'redis', 'asyncio'} & set(sys.modules)"
    program = f"import sys, extproc.cli; print({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_help_without_arguments() -> None:
    result = CliRunner().invoke(main, [])
    assert "Usage: " in result.output
    assert isinstance(main, click.Group)
