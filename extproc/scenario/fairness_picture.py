"""The picture of a comparison: the service difference over time, and how long each client waited."""
# ruff: noqa: PLC0415 - matplotlib is an extra, and takes a while to import

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from extproc.scenario.fairness import Comparison
from extproc.scenario.vtc import WINDOW_SECONDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (9.0, 3.6)  # inches
DOTS_PER_INCH = 100
COLOURS = ("#999999", "#e69f00", "#d55e00", "#0072b2")  # of Okabe and Ito: told apart by colour-blind readers, too


def draw(comparison: Comparison, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(SIZE, dpi=DOTS_PER_INCH, layout="constrained")
    over_time, waits = figure.subplots(1, 2)
    for order, colour in zip(comparison.runs, COLOURS, strict=False):
        _difference(over_time, comparison, order, colour)
        _waits(waits, comparison, order, colour)
    handles, labels = over_time.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _difference(axes: Axes, comparison: Comparison, order: str, colour: str) -> None:
    found = comparison.difference(order)
    axes.plot([begin + WINDOW_SECONDS / 2 for begin in found.windows], found.points, color=colour, label=order)
    axes.set_xlabel("seconds")
    axes.set_ylabel("service difference, tokens/s")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)


def _waits(axes: Axes, comparison: Comparison, order: str, colour: str) -> None:
    """Median time to the first token of each client, those with the fewest requests first."""
    waits: dict[str, list[float]] = {}
    for one in comparison.runs[order].served:
        if one.first_token_at is not None:
            waits.setdefault(one.client, []).append(one.first_token_at - one.asked_at)
    medians = [sorted(own)[len(own) // 2] for own in sorted(waits.values(), key=len)]
    axes.plot(range(1, len(medians) + 1), medians, ".-", color=colour)
    axes.set_yscale("log")
    axes.set_xlabel("client, busiest last")
    axes.set_ylabel("median TTFT, s")
    axes.grid(visible=True, alpha=0.3)
