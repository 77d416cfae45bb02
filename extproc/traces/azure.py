"""The traces of Azure's LLM inference service: Azure/AzurePublicDataset, CC-BY 4.0; cite Splitwise (ISCA 2024).

That of 2023 is two files, `code` and `conv`, recorded in the same hour. No tenants, no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from extproc.traces.rows import Row
from extproc.traces.table import Table


def _row(cells: Sequence[str]) -> Row:
    stamp, prompt, output = cells
    moment = datetime.fromisoformat(stamp)
    if moment.tzinfo is None:  # 2023's; the trace of 2024 has +00:00
        moment = moment.replace(tzinfo=UTC)
    return Row(moment.timestamp(), int(prompt), int(output))


AZURE = Table(
    name="Azure LLM inference trace",
    columns=("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    row=_row,
    expected="a time like 2023-11-16 18:17:03.97 and two whole numbers of tokens",
    calendar=True,
)
