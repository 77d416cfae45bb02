"""Small trace files as their publishers write them."""

from __future__ import annotations

from pathlib import Path

AZURE_HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens"
ARENA_HEAD = "req_time_s,client,input_tokens,output_tokens"


def file(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*lines, ""]))
    return path
