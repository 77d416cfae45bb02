"""The plan: one mixed pool against two, the best threshold between them, and what would change that."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from extproc.planning import forms
from extproc.planning.forms import Rates
from extproc.planning.lengths import Lengths
from extproc.planning.sizing import Fleet, Infeasible, Need, Sizer
from extproc.sim.timing import Timing

SHORTEST_THRESHOLD = 256
PER_OCTAVE = 4  # thresholds that are tried between n and 2n tokens
ROUNDED_TO = 64  # tokens
LITTLE = 0.2  # by how much a figure is moved in the table of sensitivity
MOST_DOUBLINGS = 12

Progress = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Split:
    """Two pools, against one."""

    threshold: int
    short_share: float
    rates: Rates
    fleet: Fleet
    homogeneous: Fleet

    @property
    def saving(self) -> float:
        """Share of the servers, for the target; negative where splitting costs more."""
        return 1 - self.fleet.servers / self.homogeneous.servers

    @property
    def closed_uncorrected(self) -> float:
        return forms.closed_saving(self.short_share, self.rates.uncorrected)

    @property
    def closed_corrected(self) -> float:
        return forms.closed_saving(self.short_share, self.rates)

    def whole(self, requests_per_second: float, *, corrected: bool) -> forms.Count:
        rates = self.rates if corrected else self.rates.uncorrected
        return forms.whole_servers(requests_per_second, self.short_share, rates)


@dataclass(frozen=True, slots=True)
class Variant:
    """The plan's threshold where one figure is another; servers are None where the target is out of reach."""

    change: str
    homogeneous: int | None
    split: int | None


@dataclass(frozen=True, slots=True)
class Trial:
    """A fleet in the simulator; servers by pool, shortest first."""

    planned: tuple[int, ...]
    planned_late: float  # share of the requests that had no first token by the target
    kept: tuple[int, ...] | None  # servers that keep the target; None where several times the planned do not


@dataclass(frozen=True, slots=True)
class Simulated:
    requests: int
    mixed: Trial
    split: Trial | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One mixed pool against two. Where fleets were simulated, it is the simulator's numbers of servers that count."""

    need: Need
    homogeneous: Fleet
    splits: tuple[Split, ...]  # by threshold; none where no threshold divides the requests
    best: Split | None
    three: Fleet | None
    pays_from: float | None  # requests a second, where splitting does not pay at the plan's rate
    variants: tuple[Variant, ...]

    simulated: Simulated | None = None

    @property
    def mixed(self) -> Fleet:
        return self.homogeneous if self.simulated is None else _as_simulated(self.homogeneous, self.simulated.mixed)

    @property
    def split(self) -> Fleet | None:
        if self.best is None or self.simulated is None:
            return None if self.best is None else self.best.fleet
        return _as_simulated(self.best.fleet, self.simulated.split)

    @property
    def saving(self) -> float:
        """Share of the mixed servers; negative where splitting costs more."""
        return 0.0 if self.split is None else 1 - self.split.servers / self.mixed.servers

    @property
    def recommended(self) -> Fleet:
        return self.split if self.split is not None and self.saving > 0 else self.mixed


def _as_simulated(fleet: Fleet, trial: Trial | None) -> Fleet:
    if trial is None or trial.kept is None:
        return fleet
    counted = zip(fleet.pools, trial.kept, strict=True)
    return Fleet(tuple(replace(pool, servers=servers) for pool, servers in counted))


def make(need: Need, threshold: int | None = None, progress: Progress = lambda: None) -> Plan:
    """With a threshold that is given, or the best of many.

    Raises Infeasible where no number of mixed servers keeps the target.
    """
    sizer = Sizer(need)
    homogeneous = sizer.homogeneous
    tried = (threshold,) if threshold is not None else candidates(need)
    splits = tuple(_splits(sizer, tried, progress))
    best = min(splits, key=_cost, default=None)
    if best is None:
        return Plan(need, homogeneous, (), None, None, None, ())
    return Plan(
        need=need,
        homogeneous=homogeneous,
        splits=splits,
        best=best,
        three=_three_pools(sizer, progress),
        pays_from=None if best.saving > 0 else _pays_from(need, best.threshold),
        variants=tuple(_vary(need, best.threshold, progress)),
    )


def candidates(need: Need) -> tuple[int, ...]:
    """Thresholds that leave requests on both sides."""
    octaves = math.log2(need.max_model_len / SHORTEST_THRESHOLD)
    exact = (SHORTEST_THRESHOLD * 2 ** (step / PER_OCTAVE) for step in range(math.ceil(octaves * PER_OCTAVE)))
    rounded = (round(one / ROUNDED_TO) * ROUNDED_TO for one in exact)
    return tuple(one for one in rounded if _divides(need, one))


def _divides(need: Need, threshold: int) -> bool:
    lengths = need.lengths
    return min(lengths.share_between(0, threshold), lengths.share_between(threshold, need.max_model_len)) > 0


def _splits(sizer: Sizer, thresholds: tuple[int, ...], progress: Progress) -> Iterator[Split]:
    for threshold in thresholds:
        if _divides(sizer.need, threshold) and (found := _feasible(sizer, (threshold,))) is not None:
            yield _split(sizer.homogeneous, found)
        progress()


def _feasible(sizer: Sizer, thresholds: tuple[int, ...]) -> Fleet | None:
    try:
        return sizer.fleet(thresholds)
    except Infeasible:
        return None


def _split(homogeneous: Fleet, fleet: Fleet) -> Split:
    [mixed], [short, long] = homogeneous.pools, fleet.pools
    rates = Rates(mixed.one_does, short.one_does, long.one_does)
    return Split(short.high, short.share / (short.share + long.share), rates, fleet, homogeneous)


def split_at(sizer: Sizer, threshold: int) -> Split:
    """Raises Infeasible; both sides of the threshold must have requests."""
    return _split(sizer.homogeneous, sizer.fleet((threshold,)))


def _cost(one: Split) -> tuple[int, float]:
    return one.fleet.servers, one.fleet.fluid_servers


def pairs(need: Need) -> list[tuple[int, int]]:
    """Thresholds of three pools: an octave apart or more, of half as many candidates."""
    found = itertools.combinations(candidates(need)[::2], 2)
    return [(low, high) for low, high in found if high >= 2 * low and need.lengths.share_between(low, high) > 0]


def _three_pools(sizer: Sizer, progress: Progress) -> Fleet | None:
    def fleets() -> Iterator[Fleet]:
        for thresholds in pairs(sizer.need):
            if (found := _feasible(sizer, thresholds)) is not None:
                yield found
            progress()

    return min(fleets(), key=lambda fleet: (fleet.servers, fleet.fluid_servers), default=None)


def _pays_from(need: Need, threshold: int) -> float | None:
    """The rate, in doublings of the plan's, from which this threshold saves a server."""
    for doubling in range(1, MOST_DOUBLINGS + 1):
        rate = need.requests_per_second * 2.0**doubling
        sizer = Sizer(replace(need, requests_per_second=rate))
        split = _feasible(sizer, (threshold,))
        if split is not None and split.servers < sizer.homogeneous.servers:
            return rate
    return None


def _vary(need: Need, threshold: int, progress: Progress) -> Iterator[Variant]:
    for change, other, at in _changes(need, threshold):
        sizer = Sizer(other)
        mixed, split = _feasible(sizer, ()), _feasible(sizer, (at,))
        yield Variant(change, _servers(mixed), _servers(split))
        progress()


def _servers(fleet: Fleet | None) -> int | None:
    return None if fleet is None else fleet.servers


def _changes(need: Need, threshold: int) -> Iterator[tuple[str, Need, int]]:
    rate, server, timing = need.requests_per_second, need.server, need.server.timing
    for factor in (0.5, 2.0):
        yield f"rate x {factor:g}", replace(need, requests_per_second=rate * factor), threshold
    for factor in (0.5, 2.0):
        at = int(threshold * factor)
        if _divides(need, at):
            yield f"threshold {at:,}", need, at
    for sign, factor in (("-", 1 - LITTLE), ("+", 1 + LITTLE)):
        by = f"{sign}{LITTLE:.0%}"
        faster_reading = Timing(timing.prefill.divided_by(factor), timing.decode)
        faster_decoding = Timing(timing.prefill, timing.decode.divided_by(factor))
        kv_tokens = max(int(server.kv_tokens * factor), need.max_model_len)
        yield f"reading speed {by}", replace(need, server=replace(server, timing=faster_reading)), threshold
        yield f"decoding speed {by}", replace(need, server=replace(server, timing=faster_decoding)), threshold
        yield f"KV tokens {by}", replace(need, server=replace(server, kv_tokens=kv_tokens)), threshold
    for factor in (1.5, 2.0):
        heavier: Lengths = need.lengths.with_heavier_tail(factor, need.max_model_len)
        yield f"longest tenth x {factor:g}", replace(need, lengths=heavier), threshold


def steps(need: Need, threshold: int | None) -> int:
    """How often `make` reports progress, at most."""
    tried = 1 if threshold is not None else len(candidates(need))
    return tried + len(pairs(need)) + len(list(_changes(need, threshold or SHORTEST_THRESHOLD * 8)))
