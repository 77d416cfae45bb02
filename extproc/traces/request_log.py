"""The sidecar's own request log, read back: requests whose server reported usage, by entitlement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from extproc.traces.rows import BadRow, Row

USAGE = "usage"  # core.charge.Source: the server said how long the request was


class _Line(msgspec.Struct):
    """What a trace needs of a line; docs/traces.md lists all of it."""

    time: float
    source: str
    entitlement: str
    prompt_tokens: int
    completion_tokens: int


class LogFormat:
    """A `rows.Format`: one JSON object a line."""

    name = "request log"
    first_line = "JSON objects with time, entitlement, source, prompt_tokens and completion_tokens"
    calendar = True

    def recognises(self, first_line: str) -> bool:
        return first_line.lstrip().startswith("{")

    def rows(self, lines: Iterable[str]) -> Iterator[tuple[int, Row | None]]:
        decode = msgspec.json.Decoder(_Line).decode
        for number, text in enumerate(lines, 1):
            if text.isspace():
                continue
            try:
                line = decode(text)
            except msgspec.DecodeError as error:
                raise BadRow(number, f"expected a line of the request log: {error}") from error
            if line.source != USAGE or line.prompt_tokens == 0:
                yield number, None
            else:
                yield number, Row(line.time, line.prompt_tokens, line.completion_tokens, line.entitlement)
