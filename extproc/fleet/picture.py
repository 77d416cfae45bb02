"""Pictures of simulated fleets. They need matplotlib, of the extra [plan]."""
# ruff: noqa: PLC0415 - matplotlib is an extra, and takes a while to import

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from extproc.fleet.loads import Comparison
from extproc.fleet.papers import Case
from extproc.fleet.simulation import Outcome
from extproc.fleet.summary import ttft_ms
from extproc.pictures import COLOURS, DOTS_PER_INCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (4.6, 3.4)  # inches
WIDTH = 0.25  # of a bar
POINTS = 500
RAREST = 1e-3  # share of requests
STYLES = ("-", "--", ":", "-.")


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """How many requests wait longer than so long, and how full each pool is."""
    figure, (waits, use) = _figure(2)
    for outcome, colour in zip(outcomes, COLOURS, strict=False):
        for number, (pool, style) in enumerate(zip(outcome.fleet.pools, STYLES, strict=False)):
            label = f"{outcome.fleet.name}: {pool.name} ({pool.servers})"
            waits.plot(*_tail(ttft_ms(outcome, outcome.pool == number) / 1000), style, color=colour, label=label)
    _share_axes(waits, "time to the first token, s")
    _bars(use, outcomes)
    _finish(figure, waits, path)


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """P99 and preemptions of each fleet by load."""
    figure, (waits, preempted) = _figure(2)
    for name, colour in zip(dict.fromkeys(row.fleet.name for row in comparison.rows), COLOURS, strict=False):
        own = [row for row in comparison.rows if row.fleet.name == name]
        loads = [row.requests_per_second for row in own]
        waits.plot(loads, [row.figures.ttft_p99_ms / 1000 for row in own], "o-", color=colour, label=name)
        preempted.plot(loads, [row.figures.preemptions_per_1000 for row in own], "o-", color=colour)
    waits.set_yscale("log")
    waits.set_ylabel("P99 time to the first token, s")
    preempted.set_ylabel("preemptions per 1,000 requests")
    preempted.set_ylim(bottom=0)
    for axes in (waits, preempted):
        axes.set_xlabel("requests/s")
        axes.grid(visible=True, alpha=0.3)
    _finish(figure, waits, path)


def draw_cases(cases: Sequence[Case], path: Path) -> None:
    """Servers of the mixed fleet and of the split one, trace by trace."""
    traces = list(dict.fromkeys(case.trace for case in cases))
    figure, panels = _figure(len(traces))
    for axes, trace in zip(panels, traces, strict=True):
        own = [case for case in cases if case.trace == trace]
        at = np.arange(len(own))
        long = [case.long.servers if case.long else 0 for case in own]
        axes.bar(at - WIDTH / 2, [case.mixed.servers for case in own], WIDTH, color=COLOURS[1], label="one pool")
        axes.bar(at + WIDTH / 2, [case.short.servers for case in own], WIDTH, color=COLOURS[0], label="short")
        axes.bar(
            *(at + WIDTH / 2, long, WIDTH), bottom=[case.short.servers for case in own], color=COLOURS[5], label="long"
        )
        axes.set_xticks(at, [case.set_up.replace(", ", ",\n") for case in own], fontsize="small")
        axes.set_title(trace)
        axes.set_ylabel("servers for the target")
    _finish(figure, panels[0], path)


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure((PANEL[0] * panels, PANEL[1]), dpi=DOTS_PER_INCH, layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _finish(figure: Figure, labelled: Axes, path: Path) -> None:
    handles, labels = labelled.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _tail(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times, and the share of values beyond each."""
    shares = np.geomspace(1.0, RAREST, POINTS) if len(values) else np.zeros(0)
    return np.quantile(values, 1 - shares) if len(values) else shares, shares


def _share_axes(axes: Axes, label: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("share of requests that wait longer")
    axes.grid(visible=True, alpha=0.3)


def _bars(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    from extproc.fleet.summary import figures

    rows = [(outcome.fleet.name, row) for outcome in outcomes for row in figures(outcome) if row.pool != "all"]
    at = np.arange(len(rows))
    axes.bar(at - WIDTH / 2, [100 * row.slots_used for _, row in rows], WIDTH, color=COLOURS[2], label="slots")
    axes.bar(at + WIDTH / 2, [100 * row.kv_used for _, row in rows], WIDTH, color=COLOURS[4], label="KV tokens")
    axes.set_xticks(at, [f"{fleet}:\n{row.pool}" for fleet, row in rows], fontsize="small")
    axes.set_ylabel("used, % (mean)")
    axes.legend(frameon=False)
