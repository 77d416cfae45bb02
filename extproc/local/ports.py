"""Ports, settled before anything starts: taken ones are refused, 0 becomes a free one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from extproc.local.faults import StackError


@dataclass(frozen=True, slots=True)
class Wanted:
    option: str  # the command-line option that chooses it, for messages
    host: str
    port: int  # 0: any free one


def settle(wanted: Sequence[Wanted]) -> tuple[int, ...]:
    """The ports to use, in the order asked for. Raises StackError where one cannot be had."""
    with ExitStack() as held:  # held together, so that two zeros never become the same port
        return tuple(bound.getsockname()[1] for bound in [held.enter_context(bind(one)) for one in wanted])


def bind(wanted: Wanted) -> socket.socket:
    """Without SO_REUSEPORT, which Envoy sets: with it, two Envoys would share a port and its requests in silence."""
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((wanted.host, wanted.port))
        bound.listen(1)  # SO_REUSEADDR lets two bind one port; only one may listen
    except OSError as error:
        bound.close()
        raise StackError(explain(wanted, error)) from error
    return bound


def explain(wanted: Wanted, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {wanted.port} is taken; stop what listens there or choose another with {wanted.option}"
    if error.errno == errno.EACCES:
        return f"port {wanted.port} needs more rights than this user has; choose one above 1023 with {wanted.option}"
    return f"cannot listen on {wanted.host}: {error.strerror}; give an address of this machine with --host"


def authority(host: str, port: int) -> str:
    """host:port as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_host(listen_host: str) -> str:
    """Where a client on this machine finds what listens on `listen_host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen_host, listen_host)
