"""What a page of documentation holds: its code blocks, and the commands in them."""

from __future__ import annotations

import re
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


def everything() -> str:
    return "\n".join(page.read_text() for page in PAGES)
