"""The picture of how soon each rule knows a tokenizer. It needs matplotlib."""
# ruff: noqa: PLC0415 - matplotlib is an extra, and takes a while to import

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from extproc.bench.accuracy import CURVE_WINDOW
from extproc.pictures import COLOURS, DOTS_PER_INCH

SIZE = (7.0, 3.8)  # inches
PERCENT = 100


def draw(curves: Mapping[str, Sequence[float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(SIZE, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    for (rule, errors), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(range(1, len(errors) + 1), [PERCENT * error for error in errors], color=colour, label=rule)
    axes.set_xlabel("requests of a kind")
    axes.set_ylabel(f"error of the mean of the last {CURVE_WINDOW}, %")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(curves), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
