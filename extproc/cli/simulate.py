"""`tokenpool simulate`: a trace through fleets of simulated servers, in virtual time."""
# ruff: noqa: PLC0415 - numpy and the simulator are imported where they simulate, not by every command

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extproc.cli import fleets, options, tables
from extproc.cli.pictures import require_pictures
from extproc.cli.plan_options import Described, ServerOptions, server_options
from extproc.cli.traffic import Traffic, load_traffic, traffic_options

if TYPE_CHECKING:
    from extproc.fleet.fleet import Fleet, Pool
    from extproc.fleet.simulation import Outcome, Progress
    from extproc.fleet.summary import Figures
    from extproc.traces.trace import Trace

PICTURE = "simulate.png"
POOL = "NAME=SERVERS:LEN[:SEQS[:KV]]"
COLUMNS = (
    *("fleet", "pool", ">servers", ">requests", ">req/s", ">TTFT p50 s", ">p99 s", ">TPOT p50 ms", ">p99 ms"),
    *(">preempted ‰", ">refused", ">misrouted", ">spilled", ">slots %", ">KV %"),
)


@dataclass(frozen=True, slots=True)
class Routing:
    """How requests find their pool."""

    route: str
    sigmas: float
    spread: float
    limits: bool
    seed: int


@click.group(invoke_without_command=True, short_help="Simulate fleets, split by length or not.")
@traffic_options
@server_options
@fleets.measured_option
@click.option("--servers", type=click.IntRange(1), help="A fleet of one pool of so many.")
@click.option(
    "--pool", "pools", multiple=True, metavar=POOL, help="A fleet of pools by length; repeated, one for each pool."
)
@click.option(
    "--route",
    type=click.Choice(["length", "estimate"]),
    default="length",
    show_default=True,
    help="By the true length, or as the sidecar does, by its estimate of bytes drawn for each prompt.",
)
@click.option("--spill", is_flag=True, help="Where a pool is full, to the next longer one that has room.")
@click.option(
    "--choice",
    type=click.Choice(["least", "turns"]),
    default="least",
    show_default=True,
    help="Of a pool's servers: the one with the fewest requests, as Envoy's, or in turn.",
)
@click.option("--sigmas", type=click.FloatRange(0), default=2.0, show_default=True, help="Caution of the estimate.")
@click.option(
    "--spread",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Of bytes per token from request to request, within a kind of text.",
)
@click.option(
    "--limits/--no-limits",
    default=True,
    show_default=True,
    help="With an estimate: each request asks for no more than its answer has, or none sets a limit.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Compresses the trace: its requests come so many times as fast. Servers stay as they are.",
)
@fleets.output_options
@click.pass_context
def simulate(  # noqa: PLR0913 - one parameter an option, or a group of them
    context: click.Context,
    /,
    *,
    traffic: Traffic,
    server: ServerOptions,
    measured: str | None,
    servers: int | None,
    pools: tuple[str, ...],
    spill: bool,
    choice: str,
    speed: float,
    processes: int | None,
    out: Path,
    picture: bool,
    as_json: bool,
    **routing: str | float | bool,
) -> None:
    """What does a fleet make of a trace: latency, preemptions, misroutes, and how full it is?

    Servers are those of `sim://`: continuous batching, a KV cache, chunked prefill, with measured times or your own. Time
    is virtual: a million requests take less than a minute. With both --servers and --pool two fleets are compared.

    \b
    Examples:
      tokenpool simulate --trace azure.csv --rate 20 --servers 8
      tokenpool simulate --trace azure.csv --rate 20 --pool short=6:8192 --pool long=2:65536 --spill
      tokenpool simulate --like lmsys --rate 50 --servers 16 --pool short=14:8192:128 --pool long=2:65536:16 --route estimate
      tokenpool simulate compare --trace conv.csv --trace code.csv --servers 8
      tokenpool simulate papers
    """  # noqa: D301, E501 - click wants the character; a command to copy is one line
    if context.invoked_subcommand is not None:
        return
    if picture:
        require_pictures()
    from extproc.fleet.fleet import Choice

    one = fleets.server_of(server, measured)
    how = {"choice": Choice(choice), "spill": spill}
    asked: list[Fleet] = []
    if servers is not None:
        asked.append(
            fleets.make_fleet("one pool", [fleets.make_pool("default", servers, one.max_model_len, one)], **how)
        )
    if pools:
        asked.append(fleets.make_fleet("pools", [fleets.parse_pool(text, one) for text in pools], **how))
    if not asked:
        raise click.UsageError("name a fleet with --servers, or with --pool once for each pool")
    trace = load_traffic(traffic)
    trace = trace if speed == 1 else trace.at_rate(trace.requests_per_second * speed)
    wishes = Routing(seed=traffic.seed, **routing)  # type: ignore[arg-type] # click has checked them
    outcomes = run_all(trace, asked, wishes, processes or options.cores())
    path = out / PICTURE if picture else None
    if path is not None:
        from extproc.fleet.picture import draw

        draw(outcomes, path)
    show_json(trace, outcomes, path) if as_json else show(trace, outcomes, path)


def named_fleets(
    one: Described, servers: int | None, pools: Sequence[str], choice: str, *, spill: bool
) -> Sequence[Fleet]:
    """Raises UsageError where there is none."""
    from extproc.fleet.fleet import Choice

    by_name: dict[str, list[Pool]] = {}
    if servers is not None:
        by_name["one pool"] = [fleets.make_pool("default", servers, one.max_model_len, one)]
    if pools:
        by_name["pools"] = [fleets.parse_pool(text, one) for text in pools]
    if not by_name:
        raise click.UsageError("name a fleet with --servers, or with --pool once for each pool")
    return [fleets.make_fleet(name, own, choice=Choice(choice), spill=spill) for name, own in by_name.items()]


def run_all(trace: Trace, asked: Sequence[Fleet], routing: Routing, processes: int) -> list[Outcome]:
    with fleets.progress_bar("requests", trace.requests * len(asked)) as progress:
        return [run_one(trace, fleet, routing, processes, progress) for fleet in asked]


def run_one(trace: Trace, fleet: Fleet, routing: Routing, processes: int, progress: Progress) -> Outcome:
    from extproc.fleet.parts import simulate as by_length
    from extproc.fleet.routing import ByEstimate
    from extproc.fleet.simulation import run
    from extproc.fleet.texts import KINDS, synthesise

    if routing.route == "length" or len(fleet.pools) == 1:
        return by_length(trace, fleet, processes, progress)
    kinds = [dataclasses.replace(kind, spread=routing.spread) for kind in KINDS]
    texts = synthesise(trace, kinds, routing.seed)
    router = ByEstimate(trace, fleet, texts, sigmas=routing.sigmas, limited=routing.limits)
    return run(trace, fleet, router, progress)


def show(trace: Trace, outcomes: Sequence[Outcome], path: Path | None) -> None:
    from extproc.fleet.summary import figures

    rows = [(outcome.fleet.name, *cells(row)) for outcome in outcomes for row in figures(outcome)]
    title = f"{trace.requests:,} requests at {trace.requests_per_second:,.4g}/s: {trace.source}"
    tables.show(title, COLUMNS, rows)
    if path is not None:
        click.echo(f"Picture: {path}")


def cells(row: Figures) -> tuple[str, ...]:
    return (
        *(row.pool, f"{row.servers:,}", f"{row.requests:,}", f"{row.served_per_second:,.2f}"),
        *(seconds(row.ttft_p50_ms), seconds(row.ttft_p99_ms), f"{row.tpot_p50_ms:.1f}", f"{row.tpot_p99_ms:.1f}"),
        *(f"{row.preemptions_per_1000:.1f}", f"{row.refused:,}", f"{row.misrouted:,}", f"{row.spilled:,}"),
        *(f"{100 * row.slots_used:.1f}", f"{100 * row.kv_used:.1f}"),
    )


def seconds(ms: float) -> str:
    return f"{ms / 1000:,.2f}"


def show_json(trace: Trace, outcomes: Sequence[Outcome], path: Path | None) -> None:
    from extproc.fleet.summary import figures

    document = {
        "trace": trace.source,
        "requests": trace.requests,
        "requests_per_second": trace.requests_per_second,
        "fleets": [
            {"fleet": outcome.fleet.name, "pools": [as_document(row) for row in figures(outcome)]}
            for outcome in outcomes
        ],
        "picture": None if path is None else str(path),
    }
    click.echo(json.dumps(document, indent=2))


def as_document(row: object) -> dict[str, object]:
    """A value's fields; null where there is no such figure, which JSON cannot say otherwise."""
    fields = dataclasses.asdict(row)  # type: ignore[call-overload] # a dataclass
    return {name: None if value != value else value for name, value in fields.items()}  # noqa: PLR0124 - NaN
