"""`tokenpool scenario fairness`: a real trace of many clients, in virtual time through the real ledger."""
# ruff: noqa: PLC0415 - what only this command needs, the others need not wait for

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from extproc.cli import options, tables
from extproc.cli.bars import progress_bars
from extproc.cli.failures import Failure
from extproc.cli.pictures import require_pictures
from extproc.cli.scenario import INTERRUPTED

if TYPE_CHECKING:
    from extproc.scenario.arena import Ask
    from extproc.scenario.engine import Run
    from extproc.scenario.fairness import Comparison


@click.command(short_help="Replay a trace of many clients; compare with VTC.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    required=True,
    help="CSV with the columns req_time_s, client, input_tokens, output_tokens.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Above 0: moves each arrival by up to 50 ms.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="A directory.")
@click.option("--picture/--no-picture", default=True, show_default=True, help="Write a PNG into --out.")
@options.json_option
def fairness(*, trace: Path, seed: int, out: Path, picture: bool, as_json: bool) -> None:
    """How fairly are the clients of one server served, with nobody refused?

    The trace is replayed on a simulated server as fast as the one that VTC (OSDI 2024) was measured on: alone, first
    come first served, least served first and in VTC's own order; then behind Tokenpool's ledger and controller on a
    real Valkey, every client with the same base. Time is virtual: a run takes seconds.

    \b
    Example:
      tokenpool scenario fairness --trace arena.csv --json
    """  # noqa: D301 - click wants the character
    from extproc.scenario import arena
    from extproc.scenario.fairness import TOKENPOOL, Comparison, alone, moved
    from extproc.traces.trace import TraceError

    path = out / "fairness.png" if picture else None
    if path is not None:
        require_pictures()
    try:
        asks = moved(arena.read(trace), seed)
    except TraceError as error:
        raise Failure(str(error), exit_code=2) from error
    comparison = Comparison(asks, {**alone(asks), TOKENPOOL: behind_tokenpool(asks)})
    if path is not None:
        from extproc.scenario.fairness_picture import draw

        draw(comparison, path)
    show_json(comparison, seed, path) if as_json else show(comparison, path)


def behind_tokenpool(asks: tuple[Ask, ...]) -> Run:
    import asyncio

    from extproc.ledger import LedgerUnavailable
    from extproc.local.faults import StackError
    from extproc.scenario import fairness as experiment
    from extproc.scenario.behind_ledger import Disquiet, Offer

    with progress_bars() as bars:
        bar = bars.add_task("behind Tokenpool", total=None)
        try:
            run = asyncio.run(experiment.behind_tokenpool(asks, Offer(), lambda now: bars.update(bar, completed=now)))
        except (StackError, LedgerUnavailable, Disquiet) as error:
            raise Failure(*str(error).splitlines()) from error
    if run is None:
        raise Failure("stopped before the end", exit_code=INTERRUPTED)
    return run


def show(comparison: Comparison, path: Path | None) -> None:
    rows = (
        (
            *(row.order, row.server),
            *map(tables.number, (row.largest, row.mean, row.variance, row.tokens_per_second, row.refused)),
            *map(tables.number, (row.ttft_p50_seconds, row.ttft_p99_seconds)),
        )
        for row in comparison.rows()
    )
    columns = (
        "order",
        "server",
        ">max diff",
        ">avg diff",
        ">variance",
        ">tokens/s",
        ">refused",
        ">TTFT p50 s",
        ">p99 s",
    )
    title = f"Service difference: {len(comparison.asks)} requests of {comparison.clients} clients"
    tables.show(title, columns, rows)
    if path is not None:
        click.echo(f"Picture: {path}")


def show_json(comparison: Comparison, seed: int, path: Path | None) -> None:
    import dataclasses
    import json

    document = {
        "scenario": "fairness",
        "seed": seed,
        "requests": len(comparison.asks),
        "clients": comparison.clients,
        "orders": [dataclasses.asdict(row) for row in comparison.rows()],
        "picture": None if path is None else str(path),
    }
    click.echo(json.dumps(document, indent=2))
