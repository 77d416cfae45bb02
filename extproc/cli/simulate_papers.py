"""`tokenpool simulate papers`: what the papers on pools by length say that splitting saves, and what is found."""
# ruff: noqa: PLC0415 - numpy and the simulator are imported where they simulate, not by every command

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extproc.cli import fleets, options, tables
from extproc.cli.pictures import require_pictures
from extproc.cli.plan_options import ServerOptions, server_options

if TYPE_CHECKING:
    from extproc.fleet.papers import Case
    from extproc.fleet.sizing import Sized
    from extproc.traces.papers import PublishedSaving

PICTURE = "simulate-papers.png"
COLUMNS = (
    *("trace", "set-up", ">req/s a server: mixed", ">short", ">long", ">mixed servers", ">short", ">long"),
    *(">simulated saving", ">a(1-1/rho)", ">paper A", ">paper B"),
)


@click.command(short_help="The savings that two papers published, simulated.")
@server_options
@fleets.measured_option
@click.option("--requests", type=click.IntRange(1000), default=100_000, show_default=True, help="Of a run, as A's.")
@click.option("--rate", type=click.FloatRange(1), default=1000.0, show_default=True, help="Requests a second, as both.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the requests.")
@fleets.output_options
def papers(  # noqa: PLR0913 - one parameter an option, or a group of them
    *,
    server: ServerOptions,
    measured: str | None,
    requests: int,
    rate: float,
    seed: int,
    processes: int | None,
    out: Path,
    picture: bool,
    as_json: bool,
) -> None:
    """How many servers keep a P99 time to the first token of 2 s, in one pool and in two?

    On requests like Azure's and LMSYS's, for arXiv 2604.08075 (A) and 2604.09613 (B): with the papers' constants, with
    measured times and their sequences (16 mixed and long, 128 short), and with measured times and 128 everywhere. Takes
    a few minutes.

    \b
    Example:
      tokenpool simulate papers --rate 100 --requests 20000
    """  # noqa: D301 - click wants the character
    if picture:
        require_pictures()
    from extproc.fleet.papers import Server, Traffic, cases
    from extproc.traces.papers import SAVINGS

    one = fleets.server_of(server, measured).server
    with fleets.progress_bar("requests", None) as progress:
        found = cases(
            Traffic(requests, rate, seed),
            Server(one.timing, one.kv_tokens),
            [saving.trace for saving in SAVINGS],
            processes or options.cores(),
            progress,
        )
    path = out / PICTURE if picture else None
    if path is not None:
        from extproc.fleet.picture import draw_cases

        draw_cases(found, path)
    published = {saving.trace: saving for saving in SAVINGS}
    show_json(found, published, path) if as_json else show(found, published, path)


def show(found: Sequence[Case], published: dict[str, PublishedSaving], path: Path | None) -> None:
    rows = []
    for case in found:
        sized = (case.mixed, case.short, case.long)
        paper = published[case.trace]
        rows.append(
            (
                *(case.trace, case.set_up, *map(rate_of, sized), *map(servers_of, sized)),
                *map(percent, (case.saving, case.closed_form, paper.saving_a, paper.saving_b)),
            )
        )
    tables.show("Servers for a P99 time to the first token of 2 s", COLUMNS, rows)
    if path is not None:
        click.echo(f"Picture: {path}")


def rate_of(sized: Sized | None) -> str:
    return "" if sized is None or sized.one_serves == float("inf") else f"{sized.one_serves:.2f}"


def servers_of(sized: Sized | None) -> str:
    return "0" if sized is None else f"{sized.servers:,}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def show_json(found: Sequence[Case], published: dict[str, PublishedSaving], path: Path | None) -> None:
    rows = [
        {
            "trace": case.trace,
            "set_up": case.set_up,
            "short_share": case.short_share,
            **{name: as_figures(sized) for name, sized in pools_of(case)},
            "saving": case.saving,
            "closed_form": case.closed_form,
            "paper_a": published[case.trace].saving_a,
            "paper_b": published[case.trace].saving_b,
        }
        for case in found
    ]
    click.echo(json.dumps({"cases": rows, "picture": None if path is None else str(path)}, indent=2))


def pools_of(case: Case) -> Sequence[tuple[str, Sized | None]]:
    return (("mixed", case.mixed), ("short", case.short), ("long", case.long))


def as_figures(sized: Sized | None) -> dict[str, float | None] | None:
    if sized is None:
        return None
    return {
        "servers": sized.servers,
        "one_serves_per_second": sized.one_serves if sized.one_serves < float("inf") else None,
        "ttft_p99_ms": sized.ttft_p99_ms if sized.ttft_p99_ms == sized.ttft_p99_ms else None,
        "late": sized.late,
        "held_up": sized.held_up,
    }
