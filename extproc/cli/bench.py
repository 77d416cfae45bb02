"""`tokenpool bench`: measurements of Tokenpool itself that need no server."""
# ruff: noqa: PLC0415 - the texts and tokenizers are an extra, and take a while to import

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extproc.cli import options
from extproc.cli.bars import progress_bars
from extproc.cli.failures import Failure
from extproc.cli.pictures import require_pictures

if TYPE_CHECKING:
    from extproc.bench.prompts import Progress
    from extproc.bench.report import Report

PICTURE = "estimator.png"
EXTRA = "pip install 'tokenpool[bench]'"


@click.group(short_help="Measure Tokenpool itself.")
def bench() -> None:
    """Measure Tokenpool itself, on real data, without a server.

    \b
    Example:
      tokenpool bench estimator --quick
    """  # noqa: D301 - click wants the character


@bench.command(short_help="How well prompts' tokens are estimated, on real texts and tokenizers.")
@click.option("--quick", is_flag=True, help="Fewer kinds of text, fewer requests, two tokenizers.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    metavar="FILE",
    help="Lengths of real answers: Azure's CSV, the arena trace, or a request log; repeated, each by itself.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all that is drawn.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="A directory.")
@click.option("--picture/--no-picture", default=True, show_default=True, help="Write a PNG into --out.")
@options.json_option
def estimator(*, quick: bool, trace: tuple[Path, ...], seed: int, out: Path, picture: bool, as_json: bool) -> None:
    """How well are tokens estimated from bytes, how soon, and at what cost?

    Chat requests made of real texts in 13 kinds, counted by four real tokenizers; beside Tokenpool's rule the papers'
    on the same requests. Also: a tokenizer that is swapped, a tenant that lies, kinds nobody has sent, and the bound of
    answers' lengths. Takes some minutes on one core; --quick less than one.

    \b
    Example:
      tokenpool bench estimator --quick
    """  # noqa: D301 - click wants the character
    path = out / PICTURE if picture else None
    if path is not None:
        require_pictures(install=EXTRA)
    from extproc.bench.packages import MissingPackage
    from extproc.bench.report import FULL, QUICK, measure

    lengths = dict(map(answers, trace))
    try:
        with progress_bar() as progress:
            report = measure(QUICK if quick else FULL, seed, lengths, progress)
    except MissingPackage as error:
        raise Failure(f"{error} is not installed: {EXTRA}") from error
    if path is not None:
        from extproc.bench.picture import draw

        draw(report.curves, path)
    show_json(report, path) if as_json else show(report, path)


def answers(path: Path) -> tuple[str, Sequence[float]]:
    """The lengths of a trace's answers, as they came. Raises Failure."""
    from extproc.bench.outputs import LIFE
    from extproc.traces.reading import read
    from extproc.traces.trace import TraceError

    try:
        output = read([path]).output_tokens
    except TraceError as error:
        raise Failure(str(error), exit_code=2) from error
    found = output[output > 0].tolist()
    if len(found) < LIFE:
        raise Failure(f"{path}: {len(found)} answers are too few; give a trace of at least {LIFE}", exit_code=2)
    return path.name, found


@contextmanager
def progress_bar() -> Iterator[Progress]:
    with progress_bars() as bars:
        bar = bars.add_task("estimator", total=1.0)
        yield lambda share: bars.update(bar, completed=share)


def show(report: Report, path: Path | None) -> None:
    from extproc.cli import bench_tables

    bench_tables.show(report)
    if path is not None:
        click.echo(f"Picture: {path}")


def show_json(report: Report, path: Path | None) -> None:
    import msgspec

    document = {"bench": "estimator", **msgspec.to_builtins(report), "picture": None if path is None else str(path)}
    click.echo(json.dumps(document, indent=2))
