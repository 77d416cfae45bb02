"""Where the published traces may lie, which are not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def published(name: str) -> Path:
    """A file of the directory that TOKENPOOL_TRACES names; the test is skipped where it is not there."""
    folder = os.environ.get("TOKENPOOL_TRACES")
    path = (Path(folder) if folder else REPOSITORY.parent / "shared" / "data") / name
    if not path.exists():
        pytest.skip(f"no {path}: name the directory of traces by TOKENPOOL_TRACES")
    return path
