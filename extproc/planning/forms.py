"""The papers' formulas for what two pools save, given what one server does: closed, and with whole servers.

Paper A (arXiv 2604.08075): equation 6 counts whole servers, equation 7 drops the rounding and takes long servers to be
as fast as mixed ones. Paper B (arXiv 2604.09613) says that they are slower, as they only get what is long; its formula
is not known to us, so that here the long pool's own rate is put in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from extproc.planning.lengths import Lengths

ROUNDING = 1e-9  # relative: 3 servers' load divided by one's may come out a hair above 3


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a second of one saturated server."""

    mixed: float
    short: float
    long: float

    @property
    def rho(self) -> float:
        return self.short / self.mixed

    @property
    def uncorrected(self) -> Rates:
        """With long servers as fast as mixed ones."""
        return Rates(self.mixed, self.short, self.mixed)


@dataclass(frozen=True, slots=True)
class Count:
    """Whole servers, for some rate."""

    homogeneous: int
    short: int
    long: int

    @property
    def split(self) -> int:
        return self.short + self.long

    @property
    def saving(self) -> float:
        """Share of the homogeneous servers; negative where splitting costs more."""
        return 1 - self.split / self.homogeneous


def closed_saving(short_share: float, rates: Rates) -> float:
    """Without rounding. Where long servers are as fast as mixed ones it is A's share * (1 - 1 / rho)."""
    return 1 - rates.mixed * (short_share / rates.short + (1 - short_share) / rates.long)


def whole_servers(requests_per_second: float, short_share: float, rates: Rates) -> Count:
    """A's equation 6."""
    return Count(
        servers_for(requests_per_second, rates.mixed),
        servers_for(requests_per_second * short_share, rates.short),
        servers_for(requests_per_second * (1 - short_share), rates.long),
    )


def servers_for(requests_per_second: float, of_one: float) -> int:
    return math.ceil(requests_per_second / of_one * (1 - ROUNDING))


def rates_by_length(known: Rates, lengths: Lengths, threshold: int) -> Rates:
    """Long servers slowed down by what their requests are longer than the mix: our own correction, work as tokens."""
    long = lengths.between(threshold, lengths.longest)
    if long is None:
        return known
    ratio = lengths.mean(lengths.total_tokens) / long.mean(long.total_tokens)
    return Rates(known.mixed, known.short, known.mixed * ratio)
