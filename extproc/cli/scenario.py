"""`tokenpool scenario`: the experiments of the token-pools paper against the real stack on this machine."""
# ruff: noqa: PLC0415 - what only this command needs, the others need not wait for

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from extproc.cli import options, tables
from extproc.cli.bars import progress_bars
from extproc.cli.failures import Failure
from extproc.cli.pictures import require_pictures

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from extproc.scenario.report import Report
    from extproc.scenario.running import Plan, Record

    Records = Mapping[str, Record]  # by the name of the run

F = TypeVar("F", bound=Callable[..., Any])

SHORTEST_SECONDS = 10.0
NOTICEABLY_LATE = 0.2  # real seconds
INTERRUPTED = 130  # what a shell makes of SIGINT


@dataclass(frozen=True, slots=True)
class Wishes:
    speed: float
    seed: int
    out: Path
    picture: bool
    as_json: bool


@dataclass(frozen=True, slots=True)
class Experiment:
    name: str
    plans: Sequence[Plan]
    report: Callable[[Records], Report]
    draw: Callable[[Records, Path], None]


def common_options(command: F) -> F:
    for option in (
        options.json_option,
        click.option("--picture/--no-picture", default=True, show_default=True, help="Write a PNG into --out."),
        click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="A directory."),
        click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the requests."),
        click.option(
            "--speed",
            type=click.FloatRange(0.1, 20),
            default=4.0,
            show_default=True,
            help="Compresses time; all figures are in the scenario's own.",
        ),
    ):
        command = option(command)
    return command


@click.group(short_help="Run an experiment against the real stack.")
def scenario() -> None:
    """Start the whole stack with simulated servers, put it under load, and show what admission changes.

    Every run is made twice: with admission, and with the same load through the same Envoy and sidecar under a
    configuration without limits.

    \b
    Example:
      tokenpool scenario overload --speed 10 --out pictures
    """  # noqa: D301 - click wants the character


@scenario.command(short_help="A flood of spot requests beside a guaranteed tenant.")
@common_options
@click.option("--duration", type=click.FloatRange(SHORTEST_SECONDS), default=300.0, show_default=True, help="Seconds.")
@click.option(
    "--headroom",
    type=click.IntRange(0, 8),
    default=0,
    show_default=True,
    help="`sharing.headroom_requests`: slots of the idle guaranteed base that are not lent.",
)
def overload(  # noqa: PLR0913 - one parameter an option
    *, speed: float, seed: int, out: Path, picture: bool, as_json: bool, duration: float, headroom: int
) -> None:
    """Does a guaranteed tenant notice that spot requests flood the server at four times its capacity?

    \b
    Example:
      tokenpool scenario overload --speed 10 --duration 120
    """  # noqa: D301 - click wants the character
    from extproc.scenario import overload as experiment
    from extproc.scenario import picture as pictures

    wishes = Wishes(speed, seed, out, picture, as_json)
    perform(Experiment("overload", experiment.plans(duration, headroom), experiment.report, pictures.overload), wishes)


@scenario.command(short_help="Half of the servers fail under elastic tenants.")
@common_options
@click.option("--duration", type=click.FloatRange(SHORTEST_SECONDS), default=420.0, show_default=True, help="Seconds.")
def fair_share(*, speed: float, seed: int, out: Path, picture: bool, as_json: bool, duration: float) -> None:
    """Who gets what survives when one of two servers fails, and is the debt paid off once it is back?

    \b
    Example:
      tokenpool scenario fair-share --speed 4 --json
    """  # noqa: D301 - click wants the character
    from extproc.scenario import fair_share as experiment
    from extproc.scenario import picture as pictures

    wishes = Wishes(speed, seed, out, picture, as_json)
    perform(Experiment("fair-share", experiment.plans(duration), experiment.report, pictures.fair_share), wishes)


def perform(experiment: Experiment, wishes: Wishes) -> None:
    path = wishes.out / f"{experiment.name}.png"
    if wishes.picture:
        require_pictures()
    records = run_all(experiment.plans, wishes)
    report = experiment.report(records)
    if wishes.picture:
        experiment.draw(records, path)
    if wishes.as_json:
        show_json(experiment, report, wishes, str(path) if wishes.picture else None)
    else:
        show(report)
        if wishes.picture:
            click.echo(f"Picture: {path}")
    warn_of_lateness(records, wishes.speed)


def run_all(plans: Sequence[Plan], wishes: Wishes) -> Records:
    """One after another, each on a stack of its own."""
    import asyncio

    from extproc.local.faults import StackError
    from extproc.scenario.running import Interrupted, Manner, run

    records: dict[str, Record] = {}
    with progress_bars() as bars:
        tasks = {plan.name: bars.add_task(plan.name, total=plan.seconds + plan.grace_seconds) for plan in plans}
        for plan in plans:
            manner = Manner(wishes.speed, wishes.seed, partial(advance, bars, tasks[plan.name]))
            try:
                records[plan.name] = asyncio.run(run(plan, manner))
            except StackError as error:
                raise Failure(f"run {plan.name!r} failed:", *str(error).splitlines()) from error
            except Interrupted as error:
                raise Failure("stopped before the end", exit_code=INTERRUPTED) from error
            advance(bars, tasks[plan.name], plan.seconds + plan.grace_seconds)
    return records


def advance(bars: Progress, task: TaskID, now: float) -> None:
    bars.update(task, completed=now)


def show(report: Report) -> None:
    from extproc.scenario.report import checks_table

    for table in (*report.tables, checks_table(report.checks)):
        tables.show(table.title, table.columns, table.rows)


def show_json(experiment: Experiment, report: Report, wishes: Wishes, picture: str | None) -> None:
    import json

    from extproc.scenario.report import report_json

    head = {"scenario": experiment.name, "speed": wishes.speed, "seed": wishes.seed, "picture": picture}
    click.echo(json.dumps({**head, **report_json(report)}, indent=2))


def warn_of_lateness(records: Records, speed: float) -> None:
    from extproc.scenario.report import late_notes

    for note in late_notes(records, NOTICEABLY_LATE * speed):
        click.echo(f"tokenpool: {note}", err=True)
