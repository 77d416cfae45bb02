"""Formats of comma-separated values under a header: columns in any order, further ones ignored."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from extproc.traces.rows import BadRow, Row


@dataclass(frozen=True, slots=True)
class Table:
    """A `rows.Format`."""

    name: str
    columns: tuple[str, ...]
    row: Callable[[Sequence[str]], Row]  # of the cells of these columns; raises ValueError
    expected: str  # of such cells, in words
    calendar: bool

    @property
    def first_line(self) -> str:
        return f"the columns {', '.join(self.columns)}"

    def recognises(self, first_line: str) -> bool:
        return set(self.columns) <= set(next(csv.reader([first_line]), ()))

    def rows(self, lines: Iterable[str]) -> Iterator[tuple[int, Row | None]]:
        reader = csv.reader(lines)
        header = next(reader, [])
        if not set(self.columns) <= set(header):
            raise BadRow(1, f"expected {self.first_line}")
        cells_of = itemgetter(*(header.index(column) for column in self.columns))
        for cells in reader:
            if not cells:  # an empty line, such as the last one
                continue
            try:
                yield reader.line_num, self.row(cells_of(cells))
            except (ValueError, IndexError) as error:
                raise BadRow(reader.line_num, f"expected {self.expected}, found {','.join(cells)!r}") from error
