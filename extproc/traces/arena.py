"""The arena trace of VTC's artifact (Ying1123/VTC-artifact, Apache-2.0): 1,500 requests of 27 clients in 600 s.

Its publisher pickles it; here it is a table of seconds since the trace began, client, and lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

from extproc.traces.rows import Row
from extproc.traces.table import Table


def _row(cells: Sequence[str]) -> Row:
    seconds, client, prompt, output = cells
    if int(output) < 1:
        raise ValueError(output)  # every answer of the arena has text; who replays it relies on that
    return Row(float(seconds), int(prompt), int(output), client)


ARENA = Table(
    name="arena trace",
    columns=("req_time_s", "client", "input_tokens", "output_tokens"),
    row=_row,
    expected="seconds, a client, and two whole numbers of tokens, 1 or more",
    calendar=False,
)
