"""What all pictures share: matplotlib, which is of the extra [plan], and colours that everybody can tell apart."""

from __future__ import annotations

from importlib.util import find_spec

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # of Okabe and Ito
DOTS_PER_INCH = 80


class NoPictures(Exception):  # noqa: N818 - it names the state of affairs
    """Raised where matplotlib is not installed. Say how to install it, or go on without pictures."""


def require() -> None:
    """Raises NoPictures, before time is spent on what could not be drawn."""
    if find_spec("matplotlib") is None:
        raise NoPictures
