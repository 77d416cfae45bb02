"""What a page of documentation holds: its code blocks, and the commands in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [found["text"] for found in _FENCED.finditer(page.read_text()) if found["language"] == language]


def commands(page: Path) -> list[str]:
    """The lines of all its `sh` blocks: each is one command."""
    return [line for block in blocks(page, "sh") for line in block.splitlines()]


def ran(command: str, folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """A `tokenpool` command of a page, run there by this build."""
    words = [sys.executable, "-m", "extproc.cli", *command.split()[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


def everything() -> str:
    return "\n".join(page.read_text() for page in PAGES)
