"""`tokenpool plan`: how many servers a load needs, in one pool or in two, and whether splitting pays."""
# ruff: noqa: PLC0415 - numpy and the planner are imported where they plan, not by every command

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extproc.cli import options, tables
from extproc.cli.bars import progress_bars
from extproc.cli.failures import Failure
from extproc.cli.pictures import require_pictures
from extproc.cli.plan_options import ServerOptions, described, server_options
from extproc.cli.traffic import Traffic, load_traffic, traffic_options
from extproc.traces.papers import DOLLARS_PER_GPU_HOUR

if TYPE_CHECKING:
    from extproc.planning.forms import Rates
    from extproc.planning.plan import Plan
    from extproc.planning.report import Prices, Table
    from extproc.planning.sizing import Need
    from extproc.traces.trace import Trace

PICTURE = "plan.png"
THRESHOLD = 8192


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a plan."""

    ttft_p99_ms: float
    utilisation: float
    held_up: float
    threshold: int | None


@click.command(short_help="Size a fleet, split by length or not.")
@traffic_options
@server_options
@click.option("--ttft-p99-ms", type=click.FloatRange(1), default=2000.0, show_default=True, help="The target.")
@click.option(
    "--utilisation",
    type=click.FloatRange(0.01, 0.99),
    default=0.85,
    show_default=True,
    help="How busy servers may be, of what they do at most.",
)
@click.option(
    "--held-up",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.05,
    show_default=True,
    help="Share of any one pool's requests that others may hold up for longer than the target.",
)
@click.option("--threshold", type=click.IntRange(1), metavar="TOKENS", help="Where to split.  [default: the best]")
@click.option("--gpus-per-server", type=click.IntRange(1), help="[default: 8 with --timing, else 1]")
@click.option(
    "--price", type=click.FloatRange(0), default=DOLLARS_PER_GPU_HOUR, show_default=True, help="Dollars a GPU-hour."
)
@click.option(
    "--server-rates",
    metavar="MIXED,SHORT[,LONG]",
    help="Requests/s that one server does, where that is known: formulas alone.",
)
@click.option(
    "--short-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Of requests up to the threshold, with --server-rates and no lengths.",
)
@click.option(
    "--simulate/--no-simulate",
    default=True,
    show_default=True,
    help="Try both fleets in the simulator, and count the servers that keep the target there.",
)
@click.option("--papers", is_flag=True, help="What the papers published, beside what their formulas say.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="A directory for the picture.")
@options.json_option
def plan(  # noqa: PLR0913 - one parameter an option, or a group of them
    *,
    traffic: Traffic,
    server: ServerOptions,
    gpus_per_server: int | None,
    price: float,
    server_rates: str | None,
    short_share: float | None,
    simulate: bool,
    papers: bool,
    out: Path | None,
    as_json: bool,
    **wishes: float | None,
) -> None:
    """How many servers does a load need for a P99 time to the first token, and would two pools by length need fewer?

    Lengths come from a trace or from quantiles; servers are described by figures, or measured. The tables show the
    papers' formulas with and without the correction for long requests, the servers for the target, what they cost a
    year, and what would change that; then the `pools:` to paste into tokenpool.yaml.

    \b
    Examples:
      tokenpool plan --like azure --rate 100
      tokenpool plan --trace conv.csv --trace code.csv --rate 200 --timing h100 --out pictures
      tokenpool plan --trace requests.log --measure http://127.0.0.1:8000 --gpus-per-server 2 --price 3.5
      tokenpool plan --server-rates 1,2 --short-share 0.5 --rate 0.5
      tokenpool plan --papers
    """  # noqa: D301 - click wants the character
    output = Output(out, simulate, as_json)
    if papers:
        show_papers(output)
    elif server_rates is not None:
        show_forms(traffic, server_rates, short_share, wishes["threshold"], output)
    elif short_share is not None:
        raise click.UsageError("--short-share goes with --server-rates")
    else:
        wanted = Wishes(**wishes)  # type: ignore[arg-type] # click has checked them
        make_plan(traffic, server, wanted, (gpus_per_server, price), output)


@dataclass(frozen=True, slots=True)
class Output:
    directory: Path | None
    simulate: bool
    as_json: bool


def make_plan(
    traffic: Traffic, options_: ServerOptions, wishes: Wishes, costs: tuple[int | None, float], output: Output
) -> None:
    from extproc.planning import trial
    from extproc.planning.plan import make, steps
    from extproc.planning.report import Prices
    from extproc.planning.sizing import Infeasible

    if output.directory is not None:
        require_pictures(otherwise="leave --out away")
    trace, rate = load_trace(traffic)
    need, gpus = needed(trace, rate, options_, wishes)
    gpus_per_server, price = costs
    with progress_bars() as bar:
        task = bar.add_task("planning", total=steps(need, wishes.threshold))
        try:
            found = make(need, wishes.threshold, lambda: bar.advance(task))
        except Infeasible as error:
            raise Failure(f"{error}; allow a longer --ttft-p99-ms, or describe faster servers") from error
        if output.simulate:
            task = bar.add_task("simulating", total=None)
            found = trial.of_plan(trace, found, lambda: bar.advance(task))
    show_plan(found, Prices(gpus_per_server or gpus, price), output)


def load_trace(traffic: Traffic) -> tuple[Trace, float]:
    """With the rate at which its requests come."""
    if traffic.burstiness is not None:
        raise click.UsageError("plan takes arrivals as Poisson's; `tokenpool simulate` knows --burstiness")
    trace = load_traffic(traffic)
    rate = traffic.rate or trace.requests_per_second
    if not rate > 0:
        raise Failure(f"{trace.source} is too short to tell its rate: give --rate", exit_code=2)
    return trace, rate


def needed(trace: Trace, rate: float, options_: ServerOptions, wishes: Wishes) -> tuple[Need, int]:
    """With the GPUs of a server."""
    from extproc.planning.lengths import of_trace
    from extproc.planning.sizing import Need

    lengths = of_trace(trace)
    server = described(options_)
    longest = server.max_model_len
    if wishes.threshold is not None and wishes.threshold >= longest:
        raise click.UsageError(f"--threshold {wishes.threshold:,} is not below --max-model-len {longest:,}")
    fits = lengths.share_between(0, longest)
    if fits == 0:
        raise Failure(f"all requests are longer than --max-model-len {longest:,}", exit_code=2)
    if lengths.longest > longest:
        click.echo(
            f"tokenpool: {1 - fits:.2%} of the requests are longer than {longest:,} tokens and left out", err=True
        )
    need = Need(
        lengths=lengths,
        server=server.server,
        max_model_len=longest,
        requests_per_second=rate,
        ttft_p99_ms=wishes.ttft_p99_ms,
        utilisation=wishes.utilisation,
        held_up=wishes.held_up,
    )
    return need, server.gpus


def show_plan(found: Plan, prices: Prices, output: Output) -> None:
    from extproc.planning import report
    from extproc.planning.picture import draw
    from extproc.planning.reasons import reasons, verdict

    path = None if output.directory is None else output.directory / PICTURE
    if path is not None:
        draw(found, path)
    if output.as_json:
        picture = None if path is None else str(path)
        click.echo(json.dumps({**report.as_json(found, prices), "picture": picture}, indent=2))
        return
    click.echo(f"Lengths: {found.need.lengths.source}\n")
    show_tables(report.tables(found, prices))
    for line in (verdict(found), *reasons(found)):
        click.echo(line)
    click.echo(f"\n{report.configuration(found)}")
    if path is not None:
        click.echo(f"\nPicture: {path}")


def show_tables(found: list[Table]) -> None:
    for table in found:
        tables.show(table.title, table.columns, table.rows)


def show_papers(output: Output) -> None:
    from extproc.planning import papers

    if output.as_json:
        click.echo(json.dumps(papers.as_json(), indent=2))
    else:
        show_tables([papers.table()])


def show_forms(
    traffic: Traffic, server_rates: str, short_share: float | None, threshold: float | None, output: Output
) -> None:
    from extproc.planning import report
    from extproc.planning.reasons import of_rates

    rates = known_rates(server_rates)
    if short_share is None:
        trace, rate = load_trace(traffic)
        is_long_known = server_rates.count(",") > 1
        short_share, rates = by_lengths(trace, int(threshold or THRESHOLD), rates, is_long_known=is_long_known)
    elif traffic.rate is None:
        raise click.UsageError("--server-rates needs --rate")
    else:
        rate = traffic.rate
    if output.as_json:
        click.echo(json.dumps(report.forms_json(rate, short_share, rates), indent=2))
        return
    show_tables(report.forms_tables(rate, short_share, rates))
    click.echo(of_rates(rate, short_share, rates))


def known_rates(text: str) -> Rates:
    from extproc.planning.forms import Rates

    try:
        mixed, short, *long = (float(one) for one in text.split(","))
        rates = Rates(mixed, short, *(long or [mixed]))
    except (ValueError, TypeError) as error:
        raise click.UsageError(f"--server-rates {text!r} is not like 2.8,11.2 or 2.8,11.2,1.4") from error
    if not min(rates.mixed, rates.short, rates.long) > 0:
        raise click.UsageError("--server-rates must be above 0")
    return rates


def by_lengths(trace: Trace, threshold: int, rates: Rates, *, is_long_known: bool) -> tuple[float, Rates]:
    """The short share; and the long servers' rate by how long their requests are, where it is not known."""
    from extproc.planning.forms import rates_by_length
    from extproc.planning.lengths import of_trace

    lengths = of_trace(trace)
    share = lengths.share_between(0, threshold)
    if not 0 < share < 1:
        raise Failure(f"a threshold of {threshold:,} tokens has no requests on one side: give --threshold", exit_code=2)
    return share, rates if is_long_known else rates_by_length(rates, lengths, threshold)
