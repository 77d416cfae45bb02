"""What can be wrong with a configuration, and where."""

from __future__ import annotations

import re
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]  # such as ("entitlements", 1, "class")

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:/<-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake as its finder knows it; the line follows from the path unless given."""

    path: KeyPath
    message: str
    line: int | None = None
    source: str | None = None  # of another file than the configuration itself


@dataclass(frozen=True, slots=True)
class Mistake:
    source: str  # the file's name
    line: int | None  # None where no line can be named, as for a file that cannot be read
    key: str  # such as "entitlements[1].class"; "" for the file as a whole
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigError(Exception):
    """The configuration cannot be used. Show every mistake, and keep the old configuration where there is one."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


def dotted(path: KeyPath) -> str:
    """A path as people write it; keys with odd characters are quoted so that a mistake stays on one line."""
    parts = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_KEY.fullmatch(step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{step!a}]")
    return "".join(parts)
