"""Where the published traces may lie, which are not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def where(name: str) -> Path:
    """In the directory that TOKENPOOL_TRACES names, whether it is there or not."""
    folder = os.environ.get("TOKENPOOL_TRACES")
    return (Path(folder) if folder else REPOSITORY.parent / "shared" / "data") / name


def published(name: str) -> Path:
    """The test is skipped where it is not there."""
    path = where(name)
    if not path.exists():
        pytest.skip(f"no {path}: name the directory of traces by TOKENPOOL_TRACES")
    return path
