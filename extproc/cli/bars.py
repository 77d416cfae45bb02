"""Progress bars, as every command shows them."""
# ruff: noqa: PLC0415 - rich is imported where a bar is shown, not by every command

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def progress_bars(*columns: ProgressColumn) -> Progress:
    """On stderr, and gone at the end; nothing where that is no terminal. Without columns rich's own."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
