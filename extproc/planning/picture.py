"""The picture of a plan: servers against the threshold, and the lengths that it divides. Needs the extra [plan]."""
# ruff: noqa: PLC0415 - matplotlib is an extra, and takes a while to import

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extproc.pictures import COLOURS, DOTS_PER_INCH
from extproc.planning.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (10.0, 4.0)  # inches
FEWEST_TOKENS = 32
MIXED, SPLIT, SHORT, LONG, CLOSED, CORRECTED = "#000000", *COLOURS[:5]


def draw(plan: Plan, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(SIZE, dpi=DOTS_PER_INCH, layout="constrained")
    servers, lengths = figure.subplots(1, 2)
    _servers(servers, plan)
    _lengths(lengths, plan)
    for axes in (servers, lengths):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:,.0f}")
        axes.grid(visible=True, alpha=0.3)
        if plan.best is not None:
            axes.axvline(plan.best.threshold, color="#999999", linestyle=":", zorder=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _servers(axes: Axes, plan: Plan) -> None:
    at = [one.threshold for one in plan.splits]
    mixed, fluid = plan.homogeneous.servers, plan.homogeneous.fluid_servers
    axes.axhline(mixed, color=MIXED, label="one mixed pool")
    axes.plot(at, [one.fleet.servers for one in plan.splits], ".-", color=SPLIT, label="two pools")
    for number, (name, colour) in enumerate((("short", SHORT), ("long", LONG))):
        axes.plot(at, [one.fleet.pools[number].servers for one in plan.splits], color=colour, alpha=0.6, label=name)
    closed = [fluid * (1 - one.closed_uncorrected) for one in plan.splits]
    corrected = [fluid * (1 - one.closed_corrected) for one in plan.splits]
    axes.plot(at, closed, "--", color=CLOSED, label="closed form")
    axes.plot(at, corrected, "--", color=CORRECTED, label="closed form, corrected")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("threshold, tokens")
    axes.set_ylabel("servers")
    axes.legend(frameon=False, fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.18))


def _lengths(axes: Axes, plan: Plan) -> None:
    lengths = plan.need.lengths
    total = lengths.total_tokens
    tokens = np.cumsum(lengths.share * total)
    axes.plot(total, np.cumsum(lengths.share), color=SPLIT, label="of the requests")
    axes.plot(total, tokens / tokens[-1], color=SHORT, label="of the tokens")
    axes.set_xlim(left=FEWEST_TOKENS)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("total tokens of a request")
    axes.set_ylabel("share up to this length")
    axes.legend(frameon=False, fontsize="small")
