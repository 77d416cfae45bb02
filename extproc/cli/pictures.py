"""Whether pictures can be drawn, for every command that draws one."""

from __future__ import annotations

from extproc.cli.failures import Failure

INSTALL = "pip install 'tokenpool[plan]'"


def require_pictures(install: str = INSTALL, otherwise: str = "give --no-picture") -> None:
    """Before time is spent on what could not be drawn. Raises Failure, which says what to install or to do."""
    from extproc.pictures import NoPictures, require  # noqa: PLC0415 - only where one is drawn

    try:
        require()
    except NoPictures as error:
        raise Failure(f"matplotlib is not installed: {install}, or {otherwise}") from error
