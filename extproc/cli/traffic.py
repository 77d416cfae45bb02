"""The options that say what traffic a command is about, and the trace they name: read from files, or drawn."""
# ruff: noqa: PLC0415 - numpy and the readers are imported where a trace is loaded, not by every command

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extproc.cli.failures import Failure
from extproc.cli.options import grouped

if TYPE_CHECKING:
    from extproc.traces.outputs import Outputs
    from extproc.traces.quantiles import Quantiles
    from extproc.traces.trace import Trace

REQUESTS = 100_000  # drawn, unless told otherwise: what the papers on token-budget routing use
REQUESTS_PER_SECOND = 100.0
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)

_OPTIONS = (
    click.option(
        "--trace",
        type=FILE,
        multiple=True,
        metavar="FILE",
        help="Requests as they came: Azure's CSV, the arena trace, or a request log; repeated, files are merged.",
    ),
    click.option(
        "--like", type=click.Choice(["azure", "lmsys"]), help="Requests drawn from published quantiles of lengths."
    ),
    click.option(
        "--quantiles",
        type=FILE,
        metavar="FILE",
        help="Requests drawn from your own: JSON [[64, 0.01], ...] or lines 64,0.01 of total tokens and share below.",
    ),
    click.option(
        "--output-tokens", type=click.FloatRange(1), metavar="MEAN", help="Of an answer; needed with --quantiles."
    ),
    click.option(
        "--requests",
        type=click.IntRange(1),
        help=f"How many: the first of a trace.  [default: all of it; {REQUESTS:,} where drawn]",
    ),
    click.option(
        "--rate",
        type=click.FloatRange(0, min_open=True),
        metavar="REQUESTS/S",
        help=f"On average.  [default: the trace's; {REQUESTS_PER_SECOND:g} where drawn]",
    ),
    click.option(
        "--burstiness",
        type=click.FloatRange(0, 100),
        help="Deviation of drawn gaps over their mean.  [default: 1, which is Poisson]",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all that is drawn."),
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """The options' values, named as they are."""

    trace: tuple[Path, ...]
    like: str | None
    quantiles: Path | None
    output_tokens: float | None
    requests: int | None
    rate: float | None
    burstiness: float | None
    seed: int


traffic_options = grouped("traffic", Traffic, _OPTIONS)


def load_traffic(traffic: Traffic) -> Trace:
    """The trace that the options name. Raises Failure, and UsageError where they name none or two."""
    named = [traffic.trace, traffic.like, traffic.quantiles]
    if sum(map(bool, named)) != 1:
        raise click.UsageError("name the requests with one of --trace, --like and --quantiles")
    from extproc.traces.trace import TraceError

    try:
        return _read(traffic) if traffic.trace else _drawn(traffic)
    except TraceError as error:
        raise Failure(str(error), exit_code=2) from error


def _read(traffic: Traffic) -> Trace:
    from extproc.traces.reading import read

    if traffic.burstiness is not None or traffic.output_tokens is not None:
        raise click.UsageError("--burstiness and --output-tokens are for drawn requests, not for those of --trace")
    trace = read(traffic.trace)
    if trace.left_out:
        click.echo(f"tokenpool: {trace.left_out:,} requests without usage are left out", err=True)
    if traffic.requests is not None:
        trace = trace.first(traffic.requests)
    return trace if traffic.rate is None else trace.at_rate(traffic.rate)


def _drawn(traffic: Traffic) -> Trace:
    from extproc.traces import published

    totals, outputs = _lengths(traffic)
    return published.from_quantiles(
        totals,
        outputs,
        traffic.requests or REQUESTS,
        traffic.rate or REQUESTS_PER_SECOND,
        traffic.seed,
        1.0 if traffic.burstiness is None else traffic.burstiness,
    )


def _lengths(traffic: Traffic) -> tuple[Quantiles, Outputs]:
    from extproc.traces import published
    from extproc.traces.outputs import Outputs
    from extproc.traces.quantiles import read_quantiles

    mean = traffic.output_tokens
    if traffic.like is not None:
        totals, outputs = published.LIKE[traffic.like]
        return totals, outputs if mean is None else replace(outputs, mean_tokens=mean)
    if traffic.quantiles is None or mean is None:
        raise click.UsageError("--quantiles needs --output-tokens: totals do not say how long answers are")
    return read_quantiles(traffic.quantiles), Outputs(mean)
