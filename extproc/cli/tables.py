"""Tables for people: framed in a terminal, plain and never cut off in a pipe or a file."""
# ruff: noqa: PLC0415 - rich is imported where a table is drawn, not by every command

from __future__ import annotations

from collections.abc import Iterable, Sequence

PIPE_WIDTH = 1000  # columns: nothing wraps, so that every row stays one line


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns whose name begins with ">" are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH, color_system=None, emoji=False, markup=False)
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD if console.is_terminal else None, padding=(0, 2, 0, 0)
    )
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    console.print()


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"  # noqa: PLR2004
