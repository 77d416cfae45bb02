"""Reads trace files, whatever their format: what a file is, its first line says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from extproc.traces.arena import ARENA
from extproc.traces.azure import AZURE
from extproc.traces.request_log import LogFormat
from extproc.traces.rows import Format, collect, text
from extproc.traces.trace import Trace, TraceError

FORMATS: tuple[Format, ...] = (AZURE, ARENA, LogFormat())
MOST_CHARACTERS = 1 << 16  # of a first line


def read(paths: Sequence[Path]) -> Trace:
    """One trace of one or several files of the same format, merged by time.

    Raises TraceError, which names file, line and what was expected, and OSError where there is no such file.
    """
    if not paths:
        raise TraceError("no file to read a trace from")
    forms = [recognised(path) for path in paths]
    for path, form in zip(paths, forms, strict=True):
        if form is not forms[0]:
            raise TraceError(f"{path}: expected {forms[0].first_line} as in {paths[0]}; read {form.name} by itself")
    return collect(paths, forms[0])


def recognised(path: Path) -> Format:
    """Raises TraceError where no format begins like this file."""
    line = text(path, MOST_CHARACTERS).partition("\n")[0]
    for form in FORMATS:
        if form.recognises(line):
            return form
    choice = "; or ".join(form.first_line for form in FORMATS)
    raise TraceError(f"{path}, line 1: expected {choice}")
