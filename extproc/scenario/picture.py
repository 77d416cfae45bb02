"""Pictures of a scenario's runs, side by side. Needs matplotlib, of the extra [plan]."""
# ruff: noqa: PLC0415 - matplotlib is an extra, and takes a while to import

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.pictures import COLOURS, DOTS_PER_INCH
from extproc.scenario.outcomes import Ending, Outcome
from extproc.scenario.report import tenants_of
from extproc.scenario.running import Record
from extproc.scenario.watching import TenantSample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 5.0, 2.3  # inches of one panel
SMOOTHED_SECONDS = 5
LATENCY_SECONDS = (0.03, 300.0)
SHADE = "#dddddd"

Panel = Callable[["Axes", Record], None]


def overload(records: Mapping[str, Record], path: Path) -> None:
    _draw(records.values(), (_latency, _slots, _throughput), path)


def fair_share(records: Mapping[str, Record], path: Path) -> None:
    _draw(records.values(), (_latency, _debt, _share, _throughput), path)


def _draw(records: Iterable[Record], panels: Sequence[Panel], path: Path) -> None:
    from matplotlib.figure import Figure

    columns = list(records)
    figure = Figure((WIDTH * len(columns), HEIGHT * len(panels)), dpi=DOTS_PER_INCH, layout="constrained")
    grid = figure.subplots(len(panels), len(columns), sharex=True, sharey="row", squeeze=False)
    for column, record in enumerate(columns):
        grid[0][column].set_title(record.plan.name)
        for row, panel in enumerate(panels):
            axes = grid[row][column]
            panel(axes, record)
            _frame(axes, record)
        grid[-1][column].set_xlabel("seconds")
    handles, labels = grid[0][-1].get_legend_handles_labels()
    key = figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=len(labels), markerscale=3)
    key.set_frame_on(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _frame(axes: Axes, record: Record) -> None:
    axes.grid(visible=True, alpha=0.3)
    axes.set_xlim(0, record.plan.seconds)
    if record.plan.outage is not None:
        axes.axvspan(record.plan.outage.begins, record.plan.outage.ends, color=SHADE, zorder=0)


def _latency(axes: Axes, record: Record) -> None:
    for tenant, colour in _coloured(record):
        own = record.of(tenant)
        _dots(axes, [one for one in own if one.first_token is not None], colour, tenant)
        _dots(axes, [one for one in own if _still_waiting(one)], colour, None)
    axes.set_yscale("log")
    axes.set_ylim(*LATENCY_SECONDS)
    axes.set_ylabel("TTFT, s (hollow: none yet)")


def _still_waiting(one: Outcome) -> bool:
    return one.first_token is None and one.ending is Ending.UNFINISHED


def _dots(axes: Axes, outcomes: Sequence[Outcome], colour: str, label: str | None) -> None:
    at, waited = [one.request.at for one in outcomes], [one.until_first_token for one in outcomes]
    face = "none" if label is None else colour
    axes.scatter(at, waited, s=6, facecolors=face, edgecolors=colour, linewidths=0.5, label=label)


def _slots(axes: Axes, record: Record) -> None:
    _lines(axes, record, lambda one: one.in_use)
    axes.set_ylabel("requests admitted")
    axes.set_yscale("symlog", linthresh=20)


def _debt(axes: Axes, record: Record) -> None:
    if record.plan.terms.limited:
        _lines(axes, record, lambda one: one.debt)
    axes.set_ylabel("debt")


def _share(axes: Axes, record: Record) -> None:
    if record.plan.terms.limited:
        # Whole slots: what falls between two of them goes back and forth from tick to tick.
        _lines(axes, record, lambda one: one.share, window=SMOOTHED_SECONDS)
    axes.set_ylabel("share, slots")


def _lines(axes: Axes, record: Record, value: Callable[[TenantSample], float], window: int = 1) -> None:
    at = [one.at for one in record.samples]
    for tenant, colour in _coloured(record):
        values = [value(one.tenants[tenant]) for one in record.samples]
        axes.plot(at, smoothed(values, window), color=colour, linewidth=1)


def _throughput(axes: Axes, record: Record) -> None:
    for tenant, colour in _coloured(record):
        counts = [record.client_tokens[tenant, second] for second in range(int(record.plan.seconds))]
        axes.plot(range(len(counts)), smoothed(counts, SMOOTHED_SECONDS), color=colour, linewidth=1)
    axes.set_ylabel("tokens/s")


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Each the mean of itself and up to window - 1 before it."""
    parts = (values[max(0, end - window) : end] for end in range(1, len(values) + 1))
    return [sum(part) / len(part) for part in parts]


def _coloured(record: Record) -> list[tuple[str, str]]:
    """Tenants that sent something. The last is drawn first, so that a flood hides nobody."""
    found = zip(tenants_of(record), COLOURS, strict=False)
    return [(tenant, colour) for tenant, colour in found if record.of(tenant)][::-1]
