"""The settings as the supervisor read them, for its workers: a file edited since must not divide them."""

from __future__ import annotations

import pickle
from pathlib import Path

from extproc.core.settings import Settings


def write(settings: Settings, path: Path) -> None:
    """`path` must lie in a directory that only this user can write to."""
    path.write_bytes(pickle.dumps(settings))


def read(path: Path) -> Settings:
    """What `write` wrote. Raises TypeError for anything else."""
    found = pickle.loads(path.read_bytes())  # noqa: S301 - written by the parent process, in a private directory
    if not isinstance(found, Settings):
        raise TypeError(f"{path} holds no settings")
    return found
