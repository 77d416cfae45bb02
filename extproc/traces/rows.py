"""What all formats share: files are opened, rows judged and counted, and merged by time into one Trace."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from extproc.traces.trace import Trace, TraceError

MOST_TOKENS = 1 << 31  # of one request: beyond, it is no count of tokens
_COLUMNS = np.dtype([("at_s", np.float64), ("prompt", np.int64), ("output", np.int64), ("client", np.int64)])


class Row(NamedTuple):
    at_s: float  # on the trace's own clock
    prompt_tokens: int
    output_tokens: int
    client: str = ""


class BadRow(Exception):  # noqa: N818 - it is a row, and never leaves this package
    """Raised by a format for a row that is none; becomes a TraceError that names the file, too."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


class Format(Protocol):
    """How one publisher writes a trace."""

    @property
    def name(self) -> str: ...

    @property
    def first_line(self) -> str:
        """What a file begins with, in words."""

    @property
    def calendar(self) -> bool:
        """Whether times are of a calendar. The trace then begins with its first request; else with its clock."""

    def recognises(self, first_line: str) -> bool: ...

    def rows(self, lines: Iterable[str]) -> Iterator[tuple[int, Row | None]]:
        """Each row with its line; None for one that is no part of the trace. Raises BadRow."""


def opened(path: Path) -> IO[str]:
    """The text of a file, gzipped or not, without a byte order mark."""
    if path.suffix == ".gz":
        return cast("IO[str]", gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def text(path: Path, characters: int = -1) -> str:
    """A file's beginning, or all of it. Raises TraceError where it is not text, OSError where it cannot be read."""
    try:
        with opened(path) as file:
            return file.read(characters)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def collect(paths: Sequence[Path], form: Format, most_tokens: int = MOST_TOKENS) -> Trace:
    """The requests of all files in the order of time.

    Raises TraceError for a row that makes no sense or has more than `most_tokens`, and where there is no request.
    """
    rows = _Rows(form, most_tokens)
    found = np.fromiter((row for path in paths for row in rows.of(path)), _COLUMNS)
    names = " + ".join(path.name for path in paths)
    if not len(found):
        left_out = f"; rows whose tokens nobody counted: {rows.left_out:,}" if rows.left_out else ""
        raise TraceError(f"{', '.join(map(str, paths))}: no requests{left_out}")
    found = found[np.argsort(found["at_s"], kind="stable")]
    return Trace(
        source=f"{form.name} ({names})",
        arrival_s=found["at_s"] - (found["at_s"][0] if form.calendar else 0.0),
        prompt_tokens=_column(found, "prompt"),
        output_tokens=_column(found, "output"),
        client=_column(found, "client"),
        clients=tuple(rows.clients),
        left_out=rows.left_out,
    )


class _Rows:
    """Reads files one after another. Clients are numbered in the order in which they appear."""

    def __init__(self, form: Format, most_tokens: int) -> None:
        self.clients: dict[str, int] = {}
        self.left_out = 0
        self._form = form
        self._most_tokens = most_tokens

    def of(self, path: Path) -> Iterator[tuple[float, int, int, int]]:
        try:
            with opened(path) as lines:
                for number, row in self._form.rows(lines):
                    if row is None:
                        self.left_out += 1
                    else:
                        self._judge(number, row)
                        yield *row[:3], self.clients.setdefault(row.client, len(self.clients))
        except BadRow as bad:
            raise TraceError(f"{path}, line {bad.line}: {bad}") from bad
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error

    def _judge(self, number: int, row: Row) -> None:
        at_s, prompt, output, _ = row
        if not (0 <= at_s < math.inf and prompt >= 1 and output >= 0):
            raise BadRow(number, f"times and tokens must be positive, found {at_s:g} s, {prompt} and {output} tokens")
        if prompt + output > self._most_tokens:
            raise BadRow(number, f"more than {self._most_tokens} tokens, found {prompt + output}")


def _column(found: NDArray[np.void], name: str) -> NDArray[np.int64]:
    return np.ascontiguousarray(found[name])


_UNREADABLE = (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error, csv.Error)


def _unreadable(path: Path, error: Exception) -> TraceError:
    return TraceError(f"{path}: expected text in UTF-8, gzipped if it is named .gz ({error})")
