from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from extproc.cli import main


def test_without_matplotlib_it_says_what_to_install_before_it_starts_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(main, ["scenario", "overload"])
    assert result.exit_code == 1
    assert "pip install 'tokenpool[plan]'" in result.stderr


@pytest.mark.parametrize("name", ["overload", "fair-share"])
def test_each_scenario_explains_its_options_and_gives_an_example(name: str) -> None:
    text = CliRunner().invoke(main, ["scenario", name, "--help"]).stdout
    assert all(option in text for option in ("--speed", "--seed", "--duration", "--out", "--json"))
    assert f"\n    tokenpool scenario {name}" in text.partition("Example:")[2]


@pytest.mark.parametrize(
    "arguments",
    [("--speed", "0"), ("--speed", "100"), ("--duration", "1"), ("--seed", "-1")],
    ids=" ".join,
)
def test_impossible_wishes_are_refused_in_one_line(arguments: tuple[str, str]) -> None:
    result = CliRunner().invoke(main, ["scenario", "overload", *arguments])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
