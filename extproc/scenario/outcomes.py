"""What became of each request, and the figures that sum it up. Times are scenario seconds after the request was due."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from extproc.scenario.loads import Request


class Ending(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    BROKEN_OFF = "broken off"  # its room was taken back, or its server died
    FAILED = "failed"  # an error that is no refusal
    UNFINISHED = "unfinished"  # the run was over first


@dataclass(frozen=True, slots=True)
class Outcome:
    request: Request
    ending: Ending
    status: int  # 0: no answer began
    reason: str  # of a refusal or an error; "" where there is none
    first_token: float | None
    end: float
    tokens: int  # that the client got
    retry_after: float | None = None
    sent_late: float = 0.0  # how far the load generator was behind; part of the other times

    @property
    def tenant(self) -> str:
        return self.request.tenant

    @property
    def until_first_token(self) -> float:
        """Where none came, how long it had been waited for: the true figure is larger."""
        return self.end if self.first_token is None else self.first_token


@dataclass(frozen=True, slots=True)
class Latency:
    """Of requests that were not refused."""

    p50: float
    p99: float
    at_least: bool  # some had no first token yet at the end of the run: the true figures are larger


@dataclass(frozen=True, slots=True)
class Summary:
    tenant: str
    sent: int
    endings: Counter[Ending]
    reasons: Counter[str]
    first_token: Latency | None  # None: nobody was served
    tokens: int
    tokens_of_finished: int

    @property
    def refused_share(self) -> float:
        return self.endings[Ending.REFUSED] / self.sent if self.sent else 0.0


def summary(tenant: str, outcomes: Iterable[Outcome]) -> Summary:
    own = [one for one in outcomes if one.tenant == tenant]
    return Summary(
        tenant=tenant,
        sent=len(own),
        endings=Counter(one.ending for one in own),
        reasons=Counter(one.reason for one in own if one.reason),
        first_token=latency(own),
        tokens=sum(one.tokens for one in own),
        tokens_of_finished=sum(one.tokens for one in own if one.ending is Ending.DONE),
    )


def latency(outcomes: Iterable[Outcome]) -> Latency | None:
    waited = [one for one in outcomes if one.first_token is not None or one.ending is Ending.UNFINISHED]
    if not waited:
        return None
    times = sorted(one.until_first_token for one in waited)
    at_least = any(one.first_token is None for one in waited)
    return Latency(percentile(times, 50), percentile(times, 99), at_least)


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest value that so many of a hundred do not exceed."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def share_within(outcomes: Iterable[Outcome], seconds: float) -> float:
    """Of all that were sent, refused ones included, how many had their first token in time; 1.0 where none was sent."""
    own = list(outcomes)
    good = sum(1 for one in own if one.first_token is not None and one.first_token <= seconds)
    return good / len(own) if own else 1.0


def longest_gap(outcomes: Iterable[Outcome], begins: float, ends: float) -> float:
    """The longest time in which no request of these got its first token."""
    served = (one.request.at + one.first_token for one in outcomes if one.first_token is not None)
    times = [begins, *sorted(at for at in served if begins < at < ends), ends]
    return max(after - before for before, after in pairwise(times))
