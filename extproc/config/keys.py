"""The key hashes of each entitlement, from the configuration itself and from key files."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from extproc.config.mistakes import KeyPath, Problem
from extproc.config.schema import EntitlementPart, key_hash

_MAX_FILE_BYTES = 16 * 1024 * 1024  # two hundred thousand keys


@dataclass(frozen=True, slots=True)
class Key:
    """A key's hash and where it stands."""

    hash: str
    path: KeyPath
    source: str | None = None  # the key file, where it stands in one
    line: int | None = None

    def problem(self, message: str) -> Problem:
        return Problem(self.path, message, self.line, self.source)


def collect(
    entitlements: Mapping[int, EntitlementPart], folder: Path
) -> tuple[dict[int, tuple[Key, ...]], list[Problem]]:
    """The keys of each entitlement by its index; relative key files are looked for in the folder."""
    keys = {}
    problems: list[Problem] = []
    for index, part in entitlements.items():
        found = list(_keys(index, part, folder))
        keys[index] = tuple(key for key in found if isinstance(key, Key))
        problems.extend(problem for problem in found if isinstance(problem, Problem))
    return keys, problems


def _keys(index: int, part: EntitlementPart, folder: Path) -> Iterator[Key | Problem]:
    at: KeyPath = ("entitlements", index)
    for number, value in enumerate(part.keys):
        yield Key(value, (*at, "keys", number))
    if part.keys_file is not None:
        yield from _from_file(folder / part.keys_file, (*at, "keys_file"))


def _from_file(file: Path, path: KeyPath) -> Iterator[Key | Problem]:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
            yield Problem(path, f"must be a plain file of at most {_MAX_FILE_BYTES} bytes: {str(file)!a}")
            return
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        yield Problem(path, f"cannot be read: {str(file)!a}: {reason}")
        return
    for number, line in enumerate(text.splitlines(), start=1):
        value = line.partition("#")[0].strip()
        if value:
            yield _from_line(Key(value, path, str(file), number))


def _from_line(key: Key) -> Key | Problem:
    try:
        key_hash(key.hash)
    except ValueError as error:
        return key.problem(str(error))
    return key
