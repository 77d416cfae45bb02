"""What stops the local stack."""

from __future__ import annotations


class StackError(Exception):
    """The local stack cannot start or go on. The message says why and what to do: stop everything, print it, exit 1."""
