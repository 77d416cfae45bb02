"""A trace in columns: when requests came, how long they were, and whose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Tokens = NDArray[np.int64]


class TraceError(ValueError):
    """The file is not a trace: say so to whoever named it. The message names file, line and what is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """n requests in the order of time. Treat the arrays as frozen, too."""

    source: str  # what it is and where it is from, for tables and pictures
    arrival_s: Times  # (n,) seconds since the trace began, ascending
    prompt_tokens: Tokens  # (n,) at least 1
    output_tokens: Tokens  # (n,) at least 0; 0 is a request that generates nothing, such as an embedding
    client: Tokens  # (n,) index into clients
    clients: tuple[str, ...] = ("",)  # names; one unnamed client where the trace tells none apart
    left_out: int = 0  # rows of the files that are no part of it, since nobody counted their tokens

    @property
    def requests(self) -> int:
        return len(self.arrival_s)

    @property
    def total_tokens(self) -> Tokens:
        return self.prompt_tokens + self.output_tokens

    @property
    def duration_s(self) -> float:
        """From the first arrival to the last."""
        return float(self.arrival_s[-1] - self.arrival_s[0]) if self.requests else 0.0

    @property
    def requests_per_second(self) -> float:
        """Of the whole trace on average; 0 where it is too short to say."""
        return (self.requests - 1) / self.duration_s if self.duration_s > 0 else 0.0

    def at_rate(self, requests_per_second: float) -> Trace:
        """The same requests with all gaps stretched or shrunk, so that as many come a second on average.

        Raises TraceError where all of them come at once.
        """
        if self.requests_per_second == 0:
            raise TraceError(f"{self.source}: its requests come at once, so they have no rate to change")
        return replace(self, arrival_s=self.arrival_s * (self.requests_per_second / requests_per_second))

    def first(self, requests: int) -> Trace:
        """At most so many, those that come first."""
        part = slice(requests)
        return replace(
            self,
            arrival_s=self.arrival_s[part],
            prompt_tokens=self.prompt_tokens[part],
            output_tokens=self.output_tokens[part],
            client=self.client[part],
        )
