"""The options of `tokenpool simulate` that describe servers and fleets, and what every simulation shows."""
# ruff: noqa: PLC0415 - numpy and the simulator are imported where they simulate, not by every command

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from extproc.cli import options
from extproc.cli.bars import progress_bars
from extproc.cli.failures import Failure
from extproc.cli.plan_options import Described, ServerOptions, described

if TYPE_CHECKING:
    from extproc.fleet.fleet import Fleet, Pool
    from extproc.sim.timing import Timing

F = TypeVar("F", bound=Callable[..., Any])

LONGEST_POOL = 4  # parts of a --pool


def measured_option(command: F) -> F:
    return click.option(
        "--measured",
        metavar="FILE:MODEL:HARDWARE:TP",
        help="Times from a CSV in the columns of Splitwise's, as perf_model.csv:llama2-70b:a100-80gb:4.",
    )(command)


def output_options(command: F) -> F:
    for option in (
        options.json_option,
        click.option("--picture/--no-picture", default=True, show_default=True, help="Write a PNG into --out."),
        click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="A directory."),
        click.option("--processes", type=click.IntRange(1, 256), help="At a time.  [default: one for each processor]"),
    ):
        command = option(command)
    return command


def server_of(server: ServerOptions, measured: str | None) -> Described:
    """Raises UsageError and Failure."""
    found = described(server)
    return found if measured is None else replace(found, server=replace(found.server, timing=_measured(measured)))


def _measured(text: str) -> Timing:
    from extproc.fleet.measured import Machine, MeasurementError, read

    parts = text.rsplit(":", 3)
    if len(parts) != LONGEST_POOL or not parts[3].isdecimal():
        raise click.UsageError(f"--measured {text!r} is not FILE:MODEL:HARDWARE:TENSOR_PARALLEL")
    path, model, hardware, tensor_parallel = parts
    try:
        return read(Path(path), Machine(model, hardware, int(tensor_parallel)))
    except MeasurementError as error:
        raise Failure(str(error), exit_code=2) from error


def make_pool(name: str, servers: int, max_model_len: int, one: Described) -> Pool:
    from extproc.fleet.fleet import Pool
    from extproc.sim.batch import Slots

    server = one.server
    slots = Slots(server.sequences(max_model_len), server.kv_tokens, server.step_tokens)
    return Pool(name, servers, max_model_len, slots, server.timing)


def parse_pool(text: str, one: Described) -> Pool:
    """NAME=SERVERS:MAX_MODEL_LEN[:MAX_NUM_SEQS[:KV_TOKENS]]; what is left out is as of every server."""
    name, _, rest = text.partition("=")
    figures = rest.split(":")
    if not (name and 2 <= len(figures) <= LONGEST_POOL and all(figure.isdecimal() for figure in figures)):  # noqa: PLR2004
        raise click.UsageError(f"--pool {text!r} is not NAME=SERVERS:MAX_MODEL_LEN[:MAX_NUM_SEQS[:KV_TOKENS]]")
    servers, max_model_len, *limits = map(int, figures)
    pool = make_pool(name, servers, max_model_len, one)
    if not limits:
        return pool
    if min(limits) < 1:
        raise click.UsageError(f"--pool {text!r}: a server needs room for at least one sequence and one token")
    slots = replace(pool.slots, max_num_seqs=limits[0])
    return replace(pool, slots=replace(slots, kv_tokens=limits[1]) if limits[1:] else slots)


def make_fleet(name: str, pools: Sequence[Pool], **how: Any) -> Fleet:  # noqa: ANN401 - Fleet's own fields
    """In the order of their lengths, whatever the order they were named in."""
    from extproc.fleet.fleet import Fleet, FleetError

    try:
        return Fleet(name, tuple(sorted(pools, key=lambda pool: pool.max_model_len)), **how)
    except FleetError as error:
        raise Failure(str(error), exit_code=2) from error


@contextmanager
def progress_bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Of requests that have come; `total` is None where nobody knows how many runs it takes."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with progress_bars(*columns) as bars:
        bar = bars.add_task(name, total=total)
        yield lambda requests: bars.advance(bar, requests)
