"""What the papers say that two pools save, beside what their own formula and this package make of their constants."""

from __future__ import annotations

from dataclasses import dataclass

from extproc.planning.forms import Count, Rates, closed_saving, rates_by_length, whole_servers
from extproc.planning.lengths import Lengths, of_trace
from extproc.planning.plan import Split, candidates, split_at
from extproc.planning.report import Json, Table
from extproc.planning.server import Server
from extproc.planning.sizing import Need, Sizer
from extproc.sim.timing import MEASURED
from extproc.traces import papers, published
from extproc.traces.papers import PublishedSaving

REQUESTS = 200_000  # drawn from the published quantiles
SEED = 0
UTILISATION = 0.85  # of the papers' companion planner, github.com/vllm-project/semantic-router, src/fleet-sim
HELD_UP = 0.05
KV_TOKENS = papers.LONG.sequences * papers.LONG.max_model_len
MOST_SEQUENCES = 64  # the largest batch whose steps were measured


@dataclass(frozen=True, slots=True)
class Row:
    """One way to a figure; savings are shares of the homogeneous servers, by trace."""

    what: str
    savings: dict[str, float]
    servers: dict[str, str]


def table() -> Table:
    found = rows()
    traces = [one.trace for one in papers.SAVINGS]
    cells = [(row.what, *(_cell(row, trace) for trace in traces)) for row in found]
    rate, threshold = papers.REQUESTS_PER_SECOND, papers.THRESHOLD_TOKENS
    title = f"Servers that two pools save at {rate:,.0f} requests/s, threshold {threshold:,}"
    return Table(title, ("", *(f">{trace}" for trace in traces)), cells)


def as_json() -> Json:
    return {"rows": [{"what": row.what, "savings": row.savings, "servers": row.servers} for row in rows()]}


def _cell(row: Row, trace: str) -> str:
    saving, servers = f"{row.savings[trace]:.1%}", row.servers.get(trace)
    return f"{saving} ({servers})" if servers else saving


def rows() -> list[Row]:
    lengths = {one.trace: lengths_like(one.trace) for one in papers.SAVINGS}
    return [*_published(), *_with_their_constants(lengths), *_with_measured_times(lengths)]


def lengths_like(trace: str) -> Lengths:
    totals, outputs = published.LIKE[trace]
    return of_trace(published.from_quantiles(totals, outputs, REQUESTS, papers.REQUESTS_PER_SECOND, SEED))


def _published() -> list[Row]:
    def servers(one: PublishedSaving) -> str:
        return f"{one.servers_homogeneous} to {one.servers_split}"

    return [
        Row(
            "published in A (2604.08075)",
            {one.trace: one.saving_a for one in papers.SAVINGS},
            {one.trace: servers(one) for one in papers.SAVINGS},
        ),
        Row("published in B (2604.09613)", {one.trace: one.saving_b for one in papers.SAVINGS}, {}),
    ]


def _with_their_constants(lengths: dict[str, Lengths]) -> list[Row]:
    bare = Rates(
        papers.HOMOGENEOUS.requests_per_second, papers.SHORT.requests_per_second, papers.LONG.requests_per_second
    )
    claimed = {one.trace: one.claimed_short_share for one in papers.SAVINGS}
    shares = {trace: short_share(trace) for trace in lengths}
    corrected = {trace: rates_by_length(bare, one, papers.THRESHOLD_TOKENS) for trace, one in lengths.items()}
    rate = papers.REQUESTS_PER_SECOND
    return [
        Row("A's closed form, the share it claims", {t: closed_saving(s, bare) for t, s in claimed.items()}, {}),
        Row(
            "A's closed form, the published lengths' share", {t: closed_saving(s, bare) for t, s in shares.items()}, {}
        ),
        _counted("A's whole servers", {t: whole_servers(rate, s, bare) for t, s in shares.items()}),
        Row("closed form, corrected", {t: closed_saving(s, corrected[t]) for t, s in shares.items()}, {}),
        _counted("whole servers, corrected", {t: whole_servers(rate, s, corrected[t]) for t, s in shares.items()}),
    ]


def short_share(trace: str) -> float:
    """Of requests up to the papers' threshold: a point of the published distribution."""
    totals, _ = published.LIKE[trace]
    return dict(totals.points)[papers.THRESHOLD_TOKENS]


def _with_measured_times(lengths: dict[str, Lengths]) -> list[Row]:
    found: list[Row] = []
    for reserves, name in ((True, "room reserved"), (False, "paged")):
        server = Server(
            MEASURED["a100"], KV_TOKENS, _sequences(reserves=reserves), papers.HOMOGENEOUS.step_tokens, reserves
        )
        sizers = {trace: Sizer(_need(one, server)) for trace, one in lengths.items()}
        at = {trace: _split(sizer) for trace, sizer in sizers.items()}
        best = {trace: _best(sizer) for trace, sizer in sizers.items()}
        found += [
            Row(f"A100, {name}: closed form", {t: one.closed_uncorrected for t, one in at.items()}, {}),
            Row(f"A100, {name}: closed form, corrected", {t: one.closed_corrected for t, one in at.items()}, {}),
            _sized(f"A100, {name}: for the target", at),
            _sized(f"A100, {name}: for the target, best threshold", best, named=True),
        ]
    return found


def _sequences(*, reserves: bool) -> int:
    return papers.SHORT.sequences if reserves else MOST_SEQUENCES


def _need(lengths: Lengths, server: Server) -> Need:
    return Need(
        lengths=lengths,
        server=server,
        max_model_len=papers.LONG.max_model_len,
        requests_per_second=papers.REQUESTS_PER_SECOND,
        ttft_p99_ms=papers.TTFT_P99_MS,
        utilisation=UTILISATION,
        held_up=HELD_UP,
    )


def _split(sizer: Sizer) -> Split:
    return split_at(sizer, papers.THRESHOLD_TOKENS)


def _best(sizer: Sizer) -> Split:
    return max((split_at(sizer, one) for one in candidates(sizer.need)), key=lambda one: one.saving)


def _counted(what: str, counts: dict[str, Count]) -> Row:
    return Row(
        what,
        {trace: one.saving for trace, one in counts.items()},
        {trace: f"{one.homogeneous} to {one.short} + {one.long}" for trace, one in counts.items()},
    )


def _sized(what: str, splits: dict[str, Split], *, named: bool = False) -> Row:
    def servers(one: Split) -> str:
        short, long = one.fleet.pools
        at = f" at {one.threshold:,}" if named else ""
        return f"{one.homogeneous.servers} to {short.servers} + {long.servers}{at}"

    return Row(what, {t: one.saving for t, one in splits.items()}, {t: servers(one) for t, one in splits.items()})
