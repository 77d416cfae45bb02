"""The page on pools: its example is a file that `tokenpool check` takes, and its thresholds are those of the code."""

from __future__ import annotations

from pathlib import Path

from extproc.config import load, warnings
from extproc.core.routing import threshold_tokens
from tests.docs.page import ROOT, blocks, commands, ran

PAGE = ROOT / "docs" / "routing.md"


def example(folder: Path) -> Path:
    [text] = blocks(PAGE, "yaml")
    path = folder / text.splitlines()[0].removeprefix("# ")
    path.write_text(text)
    return path


def test_its_commands_run(tmp_path: Path) -> None:
    example(tmp_path)
    for command in commands(PAGE):
        done = ran(command, tmp_path, seconds=60)
        assert done.returncode == 0, done.stderr


def test_its_example_says_nothing_doubtful_and_has_the_thresholds_it_speaks_of(tmp_path: Path) -> None:
    settings = load(example(tmp_path))
    assert warnings(settings) == ()
    [model] = settings.policy.models
    assert [threshold_tokens(model, index) for index in range(3)] == [8192, 30_000, 131_072]
