"""Small fleets and traces whose figures are known beforehand."""

from __future__ import annotations

import numpy as np

from extproc.fleet.fleet import Choice, Fleet, Pool
from extproc.sim.batch import Slots
from extproc.sim.timing import Timing, constant_decode, linear_prefill
from extproc.traces.trace import Trace

PLAIN = Timing(linear_prefill(100.0), constant_decode(10.0))  # 0.1 ms to read a token, 10 ms for a step
ROOMY = Slots(16, 16_384)


def trace_of(*rows: tuple[float, int, int]) -> Trace:
    """Seconds, prompt and output tokens of each request."""
    at, prompts, outputs = zip(*rows, strict=True)
    n = len(rows)
    return Trace("test", np.array(at, float), np.array(prompts), np.array(outputs), np.zeros(n, np.int64))


def mixed(requests: int = 2000, per_second: float = 20.0, seed: int = 1) -> Trace:
    """Mostly short, a few long, Poisson arrivals."""
    random = np.random.default_rng(seed)
    prompts = np.where(random.random(requests) < 0.1, random.integers(1000, 3000, requests), 0)
    return Trace(
        "mixed",
        np.cumsum(random.exponential(1 / per_second, requests)),
        np.where(prompts > 0, prompts, random.integers(10, 700, requests)),
        random.integers(1, 200, requests),
        np.zeros(requests, np.int64),
    )


def pool(
    name: str = "default",
    servers: int = 1,
    max_model_len: int = 4096,
    slots: Slots | None = None,
    timing: Timing = PLAIN,
) -> Pool:
    return Pool(name, servers, max_model_len, slots or Slots(16, 16_384), timing)


def split(choice: Choice = Choice.LEAST, *, spill: bool = False, short: int = 2, long: int = 1) -> Fleet:
    return Fleet("split", (pool("short", short, 1024), pool("long", long, 4096)), choice, spill)


def alone(servers: int = 1, slots: Slots = ROOMY, timing: Timing = PLAIN) -> Fleet:
    return Fleet("alone", (pool(servers=servers, slots=slots, timing=timing),))
