"""Small trace files as their publishers write them, and where the real ones may lie."""

from __future__ import annotations

import os
from pathlib import Path

AZURE_HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens"
ARENA_HEAD = "req_time_s,client,input_tokens,output_tokens"
REPOSITORY = Path(__file__).parents[2]


def published(*names: str) -> list[Path]:
    """Not part of the repository: the directory of traces is named by TOKENPOOL_TRACES."""
    folder = os.environ.get("TOKENPOOL_TRACES")
    return [(Path(folder) if folder else REPOSITORY.parent / "shared" / "data") / name for name in names]


def file(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*lines, ""]))
    return path
