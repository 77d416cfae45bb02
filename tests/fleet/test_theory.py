"""The simulator where queueing theory has the answer, and against the bound that no fleet exceeds."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from numpy.typing import NDArray

from extproc.fleet.fleet import Fleet
from extproc.fleet.routing import ByLength
from extproc.fleet.simulation import run
from extproc.planning.queueing import mgc
from extproc.sim.batch import Slots
from extproc.sim.timing import Timing, constant_decode, linear_prefill
from extproc.traces import published
from extproc.traces.trace import Trace
from tests.fleet.fleets import pool

Floats = NDArray[np.float64]

STEP_MS = 1.0
SERVICE_MS = 20_000.0  # mean; one step is next to nothing of it
FREE_PROMPTS = Timing(linear_prefill(1e-9), constant_decode(STEP_MS))


def queue(places: int) -> Fleet:
    """One server, so that there is one queue."""
    return Fleet("queue", (pool(slots=Slots(places, 10**9, 10**6), max_model_len=10**7, timing=FREE_PROMPTS),))


def draw(requests: int, places: int, busy: float, *, constant: bool = False) -> tuple[Floats, Floats]:
    """Poisson arrivals in ms, and service times in whole steps."""
    random = np.random.default_rng(1)
    at = np.cumsum(random.exponential(SERVICE_MS / places / busy, requests))
    service = np.full(requests, SERVICE_MS) if constant else random.exponential(SERVICE_MS, requests)
    return at, np.maximum(1.0, np.rint(service))


def simulated(at: Floats, service: Floats, places: int) -> float:
    """The mean wait in ms."""
    n = len(at)
    trace = Trace("theory", at / 1000, np.ones(n, np.int64), service.astype(np.int64), np.zeros(n, np.int64))
    outcome = run(trace, queue(places), ByLength(trace, queue(places)))
    return float((outcome.first_token_ms - outcome.arrival_ms).mean())


def exact(at: Floats, service: Floats, places: int) -> float:
    """The mean wait in ms in the queue itself, request by request (Kiefer and Wolfowitz 1955)."""
    free_at = [0.0] * places
    waited = 0.0
    for arrival, own in zip(at.tolist(), service.tolist(), strict=True):
        start = max(free_at[0], arrival)
        waited += start - arrival
        heapq.heapreplace(free_at, start + own)
    return waited / len(at)


def of_theory(places: int, busy: float, *, constant: bool) -> float:
    wait = mgc(places, places * busy, SERVICE_MS, 0.0 if constant else 1.0)  # exact for one place, and for M/M/c
    return wait.chance * wait.mean_ms


queues = pytest.mark.parametrize(
    ("places", "busy", "constant"),
    [
        pytest.param(1, 0.5, False, id="M/M/1"),
        pytest.param(4, 0.7, False, id="M/M/4"),
        pytest.param(8, 0.8, False, id="M/M/8"),
        pytest.param(1, 0.5, True, id="M/D/1 half busy"),
        pytest.param(1, 0.8, True, id="M/D/1"),
    ],
)


@queues
def test_waits_are_those_of_the_queue_request_by_request(places: int, busy: float, constant: bool) -> None:
    at, service = draw(20_000, places, busy, constant=constant)
    assert simulated(at, service, places) == pytest.approx(exact(at, service, places), rel=0.003)


@queues
def test_waits_of_the_queue_are_those_of_theory(places: int, busy: float, constant: bool) -> None:
    """So the simulator's are, too; it would take long over as many requests as leave so little to chance."""
    at, service = draw(2_000_000, places, busy, constant=constant)
    assert exact(at, service, places) == pytest.approx(of_theory(places, busy, constant=constant), rel=0.017)


@pytest.mark.parametrize("constant", [False, True], ids=["M/M/1", "M/D/1"])
def test_waits_are_those_of_theory(constant: bool) -> None:
    at, service = draw(120_000, 1, 0.5, constant=constant)
    assert simulated(at, service, 1) == pytest.approx(of_theory(1, 0.5, constant=constant), rel=0.02)


@pytest.mark.parametrize("load", [1.1, 3.0, 20.0], ids=lambda load: f"{load:g} times what it can do")
def test_an_overloaded_fleet_serves_its_analytic_capacity_and_no_more(load: float) -> None:
    """Places over the mean time that a request holds one, as the papers' public simulator does not: it serves more by
    the number of places."""
    places, servers, timing = 16, 10, Timing(linear_prefill(1e-9), constant_decode(30.0))
    lengths = published.azure(20_000, 1.0, seed=1)
    most = places * servers / (float(lengths.output_tokens.mean()) * 30.0 / 1000)
    trace = published.azure(20_000, load * most, seed=1)
    fleet = Fleet(
        "overloaded", (pool(servers=servers, max_model_len=65_536, slots=Slots(places, 2**20), timing=timing),)
    )
    outcome = run(trace, fleet, ByLength(trace, fleet))
    served = trace.requests / (outcome.duration_ms / 1000)
    assert served <= most * 1.001  # a request's first token comes with its prompt, which is free
    assert served > 0.9 * most
