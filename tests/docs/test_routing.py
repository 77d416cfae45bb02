"""The page on pools: its example is a file that `tokenpool check` takes, and its thresholds are those of the code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from extproc.config import load, warnings
from extproc.core.routing import threshold_tokens
from tests.docs.page import ROOT, blocks, commands

PAGE = ROOT / "docs" / "routing.md"


def example(folder: Path) -> Path:
    [text] = blocks(PAGE, "yaml")
    path = folder / text.splitlines()[0].removeprefix("# ")
    path.write_text(text)
    return path


def test_its_commands_run(tmp_path: Path) -> None:
    example(tmp_path)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands(PAGE):
        subprocess.run(command.split(), cwd=tmp_path, env=environment, check=True, capture_output=True)


def test_its_example_says_nothing_doubtful_and_has_the_thresholds_it_speaks_of(tmp_path: Path) -> None:
    settings = load(example(tmp_path))
    assert warnings(settings) == ()
    [model] = settings.policy.models
    assert [threshold_tokens(model, index) for index in range(3)] == [8192, 30_000, 131_072]
