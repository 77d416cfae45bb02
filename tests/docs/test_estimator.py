"""The page on the estimator: its quick command runs, and prints the tables that the page shows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.page import ROOT, blocks, commands, ran

PAGE = ROOT / "docs" / "estimator.md"
FIGURES = re.compile(r"[+-]?\d[\d,.]*|\bnever\b| +")


def columns(text: str) -> list[str]:
    """The first two lines of each table but for figures: its title, and the names of its columns."""
    tables = re.split(r"\n\s*\n", text.strip())
    return [FIGURES.sub(" ", line).strip() for table in tables for line in table.splitlines()[:2]]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("estimator")
    [command] = [line for line in commands(PAGE) if "--quick" in line]
    done = ran(command, folder, seconds=200)
    if "is not installed" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.timeout(240)
def test_the_quick_command_prints_tables_like_those_shown(printed: tuple[Path, str]) -> None:
    shown = [line for block in blocks(PAGE, "text") for line in columns(block)]
    given = columns(printed[1])
    without_tokenizers = [line for line in shown if not line.startswith("kind cl")]
    assert len(shown) == 16
    assert [line for line in without_tokenizers if line not in given] == []


def test_its_picture_is_drawn(printed: tuple[Path, str]) -> None:
    folder, text = printed
    assert text.splitlines()[-1] == "Picture: pictures/estimator.png"
    assert (folder / "pictures" / "estimator.png").stat().st_size > 10_000


def test_every_source_of_texts_and_tokenizers_is_named() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    packages = [requirement.partition("==")[0] for requirement in extra if not requirement.startswith("matplotlib")]
    assert [name for name in packages if name not in PAGE.read_text()] == []
