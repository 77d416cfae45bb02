"""The simulated server of `sim://`, live over HTTP, against the simulator in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from extproc.fleet.fleet import Fleet
from extproc.fleet.routing import ByLength
from extproc.fleet.simulation import run
from extproc.sim.batch import Slots
from extproc.sim.timing import Timing
from extproc.traces.trace import Trace
from tests.fleet.fleets import pool
from tests.sim.simulated import MAX_MODEL_LEN, Client, simulated

SPEED = 8
LAG = 0.02 * SPEED  # seconds of the trace's time
SEQUENCES, KV_TOKENS = 6, 6000
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answer:
    """In seconds of the trace's time, since the request was sent."""

    first_token: float
    end: float


async def ask(client: Client, prompt: int, output: int) -> Answer:
    loop = asyncio.get_running_loop()
    sent = loop.time()
    body = {"prompt": [1] * prompt, "max_tokens": output, "stream": True}
    async with client.session.post(f"{client.url}/v1/completions", json=body) as response:
        await response.content.readuntil(b"\n\n")
        first = loop.time()
        await response.read()
    return Answer((first - sent) * SPEED, (loop.time() - sent) * SPEED)


async def replay(client: Client, trace: Trace) -> list[Answer]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    columns = (trace.arrival_s.tolist(), trace.prompt_tokens.tolist(), trace.output_tokens.tolist())
    asking: list[asyncio.Task[Answer]] = []
    for at, prompt, output in zip(*columns, strict=True):
        await asyncio.sleep(began + at / SPEED - loop.time())
        asking.append(asyncio.create_task(ask(client, int(prompt), int(output))))
    return await asyncio.gather(*asking)


def busy_minute() -> Trace:
    """About as much as six sequences can do, so that some wait; KV runs out now and then."""
    random = np.random.default_rng(2)
    n = 70
    at = np.cumsum(random.exponential(0.8, n))
    return Trace("live", at, random.integers(50, 1500, n), random.integers(2, 120, n), np.zeros(n, np.int64))


async def test_the_live_server_agrees_with_the_simulator() -> None:
    """Within a tenth, or what a busy machine needs to carry a token over HTTP."""
    trace = busy_minute()
    async with simulated(f"speed={SPEED}&max_num_seqs={SEQUENCES}&kv_tokens={KV_TOKENS}") as client:
        answers = await replay(client, trace)
    one = pool(max_model_len=MAX_MODEL_LEN, slots=Slots(SEQUENCES, KV_TOKENS), timing=Timing())
    fleet = Fleet("one", (one,))
    outcome = run(trace, fleet, ByLength(trace, fleet))
    ttft = np.array([answer.first_token for answer in answers])
    whole = np.array([answer.end for answer in answers])
    expected = quantiles((outcome.first_token_ms - outcome.arrival_ms) / 1000)
    assert quantiles(ttft) == pytest.approx(expected, rel=0.1, abs=LAG)
    assert quantiles(whole) == pytest.approx(quantiles((outcome.end_ms - outcome.arrival_ms) / 1000), rel=0.1, abs=LAG)


def quantiles(values: Times) -> tuple[float, ...]:
    return tuple(np.percentile(values, (25, 50, 75, 90)).tolist())
