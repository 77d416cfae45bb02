"""Whether anything listens at a Redis URL: a refused connection is worth saying before all else is started."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from extproc.core.settings import without_password
from extproc.local.faults import StackError

CONNECT_SECONDS = 2.0
DEFAULT_PORTS = {"redis+sentinel": 26379}
REDIS_PORT = 6379


def check(url: str) -> None:
    """One host that answers is enough: Sentinel and Cluster URLs may name several. Raises StackError."""
    try:
        wanted = places(url)
    except ValueError as error:
        raise StackError(f"{without_password(url)}: {error}; correct `redis:` in the configuration") from error
    reasons = [reason for reason in map(refusal, wanted) if reason]
    if len(reasons) == len(wanted):
        raise StackError(
            f"no Redis at {without_password(url)} ({'; '.join(reasons)}); start it, correct `redis:` in the "
            "configuration, or leave that line out: then an embedded Valkey is used"
        )


def places(url: str) -> list[tuple[str, int]]:
    """Hosts and ports, or the path of a socket with port 0."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return [(parts.path, 0)]
    default = DEFAULT_PORTS.get(parts.scheme, REDIS_PORT)
    return [place(one, default) for one in parts.netloc.rpartition("@")[2].split(",")]


def place(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or default_port


def refusal(where: tuple[str, int]) -> str:
    """Why no connection came about; "" where one did."""
    host, port = where
    family = socket.AF_INET if port else socket.AF_UNIX
    try:
        if family is socket.AF_INET:
            socket.create_connection(where, CONNECT_SECONDS).close()
        else:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(CONNECT_SECONDS)
                client.connect(host)
    except OSError as error:
        return f"{host}{f':{port}' if port else ''}: {error.strerror or error}"
    return ""
