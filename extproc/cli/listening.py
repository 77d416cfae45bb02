"""Ports that a command is about to listen on, refused in one line where they cannot be had."""

from __future__ import annotations

from extproc.cli.failures import Failure


def require_free(*places: tuple[str, str, int]) -> None:
    """Each place is (option that chooses the port, host, port)."""
    from extproc.local.faults import StackError  # noqa: PLC0415 - only commands that listen need it
    from extproc.local.ports import Wanted, settle  # noqa: PLC0415

    try:
        settle([Wanted(*place) for place in places])
    except StackError as error:
        raise Failure(str(error)) from error
