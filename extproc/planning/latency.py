"""The time to the first token on a fleet of equal servers: waiting for a place, for prompts ahead, and reading.

Our own composition, from the simulator's server model. A request goes to the server with the fewest. It waits until a
sequence's place is free (M/G/c over the places of all servers), until the prompts before it on its server are read
(G/G/1), and until the step under way ends; then its prompt is read, in as many steps as it has chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from extproc.planning import queueing
from extproc.planning.lengths import Floats
from extproc.planning.server import MS, Pace, Work

GRID = 256  # operating points between idle and saturated
PROMPTS = 1000  # stand for all in a quantile
LATE = 0.01  # of requests: the target is for the P99
HALVINGS = 40
TINY = 1e-9
# Two constants fitted to the fleet simulator, on 320 fleets of 1 to 40 servers, 40 to 85 % busy, on lengths like
# Azure's and LMSYS's. The P99 is then within 20 % (root mean square); most are too low, those of short prompts by most.
BLURRING_SEQUENCES = 60.0  # with so many decoding, a server's number of requests says little of its prompts
SPREAD = 0.5  # of the variation that prompts bring, what is left where a request may choose among many servers


@dataclass(frozen=True, slots=True)
class Load:
    """What requests meet on a fleet."""

    pace: Pace
    utilisation: float  # of what saturated servers do
    read_ms: Floats  # (PROMPTS,) ascending: of the prompt, by itself
    shared_ms: Floats  # (PROMPTS,) that other sequences' tokens add to those steps
    wait: queueing.Wait

    def late(self, ttft_ms: float) -> float:
        """The share of requests whose first token takes longer."""
        return float(self.wait.beyond(ttft_ms - self.read_ms - self.shared_ms).mean())

    def held_up(self, ms: float) -> float:
        """The share of requests that others delay by more than this, and by more than their own reading takes."""
        return float(self.wait.beyond(np.maximum(ms, self.read_ms) - self.shared_ms).mean())

    @property
    def ttft_p99_ms(self) -> float:
        low, high = 0.0, float((self.read_ms + self.shared_ms).max()) + 10 * self.wait.mean_ms
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.late(middle) > LATE else (low, middle)
        return high


class Latency:
    """Of servers that all do the same work."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._prompts = _representatives(work)
        per_step = np.linspace(work.most_per_step / GRID, work.most_per_step, GRID)
        self._paces = [work.pace(float(one)) for one in per_step]
        self._rates = np.maximum.accumulate([pace.requests_per_second for pace in self._paces])

    @property
    def most_per_second(self) -> float:
        """Requests that one saturated server does."""
        return float(self._rates[-1])

    @property
    def alone(self) -> Load:
        """Where every request has a server to itself: no number of servers does better."""
        read_ms = self._prompts.read_ms
        return Load(self._paces[0], 0.0, read_ms, np.zeros_like(read_ms), queueing.NONE)

    def at(self, requests_per_second: float, servers: int) -> Load:
        """Raises ValueError where they would be saturated."""
        each = requests_per_second / servers
        if each >= self.most_per_second:
            raise ValueError("the servers are saturated")
        pace = self._pace(each)
        utilisation = each / self.most_per_second
        places, prompts = self._wait_for_place(utilisation, servers), self._wait_for_prompts(each, servers, pace)
        # The unlucky percent meets a step that has just begun, and sits through the others' tokens in its own.
        shared_ms = (self._prompts.chunks + 1) * self._decode_ms(pace)
        return Load(pace, utilisation, self._prompts.read_ms, shared_ms, queueing.both(places, prompts))

    def _pace(self, each: float) -> Pace:
        return self._paces[min(int(np.searchsorted(self._rates, each)), GRID - 1)]

    def _decode_ms(self, pace: Pace) -> float:
        """What the others' tokens add to a step."""
        return self._work.server.timing.decode.at(max(1.0, pace.decoding)) * -math.expm1(-pace.decoding)

    def _wait_for_place(self, utilisation: float, servers: int) -> queueing.Wait:
        """All places are taken only where servers are saturated, so that service times are those of then."""
        work = self._work
        squared_cv = work.lengths.mean(work.steps**2) / work.mean_steps**2 - 1
        service_ms = work.mean_steps * self._paces[-1].step_ms
        places = max(1, int(servers * work.sequences))
        load = utilisation * servers * self.most_per_second * service_ms / MS
        return queueing.mgc(places, min(load, places * (1 - TINY)), service_ms, squared_cv)

    def _wait_for_prompts(self, each: float, servers: int, pace: Pace) -> queueing.Wait:
        """Each prompt takes its own reading, and its part of the steps' decoding and shared cost."""
        work, mean = self._work, self._work.lengths.mean
        per_step_ms = self._decode_ms(pace) + work.shared_ms
        taken_ms = work.read_ms - work.shared_ms + per_step_ms * work.lengths.prompt_tokens / work.server.step_tokens
        busy = min(each / MS * mean(taken_ms), 1 - TINY)
        seen_ms = np.minimum(taken_ms, self._until_avoided_ms(each, servers, pace))
        chance = min(each / MS * mean(seen_ms), 1 - TINY)
        squared_cv = max(0.0, mean(2 * taken_ms * seen_ms - seen_ms**2) / mean(taken_ms) ** 2 - 1)
        spread = SPREAD + (1 - SPREAD) / servers
        wait = queueing.gg1(busy, mean(taken_ms), self._arrivals_squared_cv(servers, pace), spread * squared_cv)
        return queueing.Wait(chance, wait.chance * wait.mean_ms / chance) if chance > 0 else queueing.NONE

    def _arrivals_squared_cv(self, servers: int, pace: Pace) -> float:
        """Between 1 / servers, where they take turns, and 1, where they are chosen at random."""
        blurred = pace.decoding / (pace.decoding + BLURRING_SEQUENCES)
        return 1 / servers + (1 - 1 / servers) * blurred

    def _until_avoided_ms(self, each: float, servers: int, pace: Pace) -> float:
        """How long a server that reads one long prompt still gets requests, before others have fewer."""
        return math.inf if servers == 1 else (1 + math.sqrt(pace.decoding)) * MS / each


@dataclass(frozen=True, slots=True)
class _Prompts:
    """Equally likely prompts, in the order of length."""

    read_ms: Floats
    chunks: Floats


def _representatives(work: Work) -> _Prompts:
    order = np.argsort(work.lengths.prompt_tokens)
    upto = np.cumsum(work.lengths.share[order])
    middles = (np.arange(PROMPTS) + 0.5) / PROMPTS
    found = order[np.minimum(np.searchsorted(upto, middles), len(order) - 1)]
    return _Prompts(work.read_ms[found], work.chunks[found])
