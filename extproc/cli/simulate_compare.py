"""`tokenpool simulate compare`: fleets of as many servers, mixed and split, at several loads of one trace."""
# ruff: noqa: PLC0415 - numpy and the simulator are imported where they simulate, not by every command

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extproc.cli import fleets, options, tables
from extproc.cli.pictures import require_pictures
from extproc.cli.plan_options import Described, ServerOptions, server_options
from extproc.cli.simulate import as_document, cells
from extproc.cli.traffic import Traffic, load_traffic, traffic_options

if TYPE_CHECKING:
    from extproc.fleet.fleet import Fleet
    from extproc.fleet.loads import Comparison
    from extproc.fleet.simulation import Progress
    from extproc.traces.trace import Trace

PICTURE = "simulate-compare.png"
THRESHOLD = 8192
LOADS = "0.5,0.7,0.8,0.9,1.0"
COLUMNS = (
    *(">load %", "fleet", ">servers", ">requests/s", ">served/s", ">TTFT p50 s", ">p99 s", ">TPOT p50 ms", ">p99 ms"),
    *(">preempted ‰", ">refused", ">slots %", ">KV %"),
)
SHOWN = (1, 3, 4, 5, 6, 7, 8, 9, 12, 13)  # of a simulation's cells


@click.command(short_help="Mixed against split, at equal numbers of servers.")
@traffic_options
@server_options
@fleets.measured_option
@click.option("--servers", type=click.IntRange(2), default=8, show_default=True, help="Of every fleet.")
@click.option(
    "--threshold",
    "thresholds",
    type=click.IntRange(1),
    multiple=True,
    help="Where to split; repeated.  [8192]",
)
@click.option("--loads", default=LOADS, show_default=True, help="Of what the first fleet can serve.")
@click.option(
    "--mixed-seqs",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Of mixed and long servers, as A's.",
)
@click.option("--short-seqs", type=click.IntRange(1), default=128, show_default=True, help="Of short servers, as A's.")
@fleets.output_options
def compare(  # noqa: PLR0913 - one parameter an option, or a group of them
    *,
    traffic: Traffic,
    server: ServerOptions,
    measured: str | None,
    servers: int,
    thresholds: tuple[int, ...],
    loads: str,
    mixed_seqs: int,
    short_seqs: int,
    processes: int | None,
    out: Path,
    picture: bool,
    as_json: bool,
) -> None:
    """Does splitting as many servers by length preempt less, and answer sooner?

    Beside the mixed fleet with the papers' few sequences stands one with as many as the short pool has: what splitting
    changes is then told apart from what the number of sequences does. A split fleet's servers are divided as is best
    for the P99 at the load that the first fleet can just serve.

    \b
    Example:
      tokenpool simulate compare --trace conv.csv --trace code.csv --servers 8 --loads 0.5,0.9
    """  # noqa: D301 - click wants the character
    if picture:
        require_pictures()
    shares = parse_loads(loads)
    one = fleets.server_of(server, measured)
    trace = load_traffic(traffic)
    many = processes or options.cores()
    asked = [mixed(one, servers, sequences) for sequences in dict.fromkeys((mixed_seqs, short_seqs))]
    splits = [split(one, servers, threshold, (short_seqs, mixed_seqs)) for threshold in thresholds or (THRESHOLD,)]
    with fleets.progress_bar("requests", None) as progress:
        asked += divided(trace, asked[0], splits, many, progress)
        found = run(trace, asked, shares, many, progress)
    path = out / PICTURE if picture else None
    if path is not None:
        from extproc.fleet.picture import draw_comparison

        draw_comparison(found, path)
    show_json(found, path) if as_json else show(found, path)


def parse_loads(text: str) -> list[float]:
    try:
        shares = [float(one) for one in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share < float("inf") for share in shares):
        raise click.UsageError(f"--loads {text!r} is not like 0.5,0.9,1.0")
    return shares


def mixed(one: Described, servers: int, sequences: int) -> Fleet:
    pool = fleets.parse_pool(f"mixed={servers}:{one.max_model_len}:{sequences}", one)
    return fleets.make_fleet(f"one pool, {sequences} sequences", [pool])


def split(one: Described, servers: int, threshold: int, sequences: tuple[int, int]) -> Fleet:
    """To be divided: one server is short, the others are long."""
    short = fleets.parse_pool(f"short=1:{threshold}:{sequences[0]}", one)
    long = fleets.parse_pool(f"long={servers - 1}:{one.max_model_len}:{sequences[1]}", one)
    return fleets.make_fleet(f"at {threshold:,}, {sequences[0]} and {sequences[1]} sequences", [short, long])


def divided(trace: Trace, first: Fleet, splits: Sequence[Fleet], processes: int, progress: Progress) -> Iterator[Fleet]:
    """At a load that the first fleet can just serve."""
    from dataclasses import replace

    from extproc.fleet import loads

    loaded = trace.at_rate(loads.capacity(trace, first, progress))
    for fleet in splits:
        best = loads.divided(loaded, fleet, processes, progress)
        short, long = best.pools
        yield replace(best, name=f"{short.servers} + {long.servers} {fleet.name}")


def run(trace: Trace, asked: list[Fleet], shares: list[float], processes: int, progress: Progress) -> Comparison:
    from extproc.fleet.loads import compare as compared

    return compared(trace, asked, shares, processes, progress)


def show(found: Comparison, path: Path | None) -> None:
    rows = []
    for row in found.rows:
        figures = cells(row.figures)
        head = (f"{100 * row.load:.0f}", row.fleet.name, figures[1], f"{row.requests_per_second:,.2f}")
        rows.append((*head, *(figures[index] for index in SHOWN[1:])))
    tables.show(f"{found.source}; 100 % is {found.capacity_per_second:,.2f} requests/s", COLUMNS, rows)
    if path is not None:
        click.echo(f"Picture: {path}")


def show_json(found: Comparison, path: Path | None) -> None:
    rows = [
        {
            "load": row.load,
            "fleet": row.fleet.name,
            "requests_per_second": row.requests_per_second,
            **as_document(row.figures),
        }
        for row in found.rows
    ]
    document = {
        "trace": found.source,
        "capacity_per_second": found.capacity_per_second,
        "rows": rows,
        "picture": None if path is None else str(path),
    }
    click.echo(json.dumps(document, indent=2))
