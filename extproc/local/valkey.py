"""The embedded Valkey: in memory only, on a unix socket only."""

from __future__ import annotations

from pathlib import Path

from extproc.local import programs
from extproc.local.processes import Child, Children

SOCKET_NAME = "valkey.sock"
READY = "eady to accept connections"  # "Ready ..." in some releases, "ready ..." in others


async def start(children: Children, run_dir: Path) -> Child:
    """Started, not yet ready. Raises StackError where the wheel is missing."""
    socket = run_dir / SOCKET_NAME
    return await children.start(
        "valkey",
        (
            str(programs.valkey()),
            *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--dir", str(run_dir)),
            *("--maxmemory-policy", "noeviction", "--loglevel", "notice"),
        ),
    )


async def ready(valkey: Child) -> None:
    await valkey.line(READY)


def url(run_dir: Path) -> str:
    return f"unix://{run_dir / SOCKET_NAME}"
