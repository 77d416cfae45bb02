from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from extproc.fleet.delays import prefill_ms
from extproc.fleet.fleet import Pool
from extproc.fleet.parts import taken
from extproc.fleet.sizing import one_serves
from extproc.planning.lengths import of_trace
from extproc.planning.server import Server, Work
from extproc.sim.batch import Slots
from extproc.sim.timing import Timing
from extproc.traces.trace import Trace
from tests.planning.needs import LONGEST, lengths_of, like, server

MIXES = {"azure": (0, LONGEST), "azure short": (0, 2048), "azure long": (4096, LONGEST), "lmsys": (0, LONGEST)}


def part_of(mix: str) -> Trace:
    trace, (low, high) = like(mix.partition(" ")[0]), MIXES[mix]
    return taken(trace, np.flatnonzero((trace.total_tokens > low) & (trace.total_tokens <= high))).first(6000)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(
    "described",
    [server(16), server(64), server(256), server(256, kv_tokens=80_000)],
    ids=["16", "64", "256", "little KV"],
)
def test_a_saturated_server_does_what_the_simulator_finds(mix: str, described: Server) -> None:
    trace = part_of(mix)
    work = Work(described, LONGEST, of_trace(trace))
    slots = Slots(described.max_num_seqs, described.kv_tokens, described.step_tokens)
    found = one_serves(trace, Pool("one", 1, LONGEST, slots, described.timing))
    assert work.saturated().requests_per_second == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize(
    ("described", "limit"),
    [
        (server(16), "sequences"),
        (server(256, kv_tokens=20_000), "kv_tokens"),
        (Server(Timing(), 10_000_000, 10_000, step_tokens=512), "step_tokens"),
    ],
    ids=["sequences", "KV tokens", "tokens of a step"],
)
def test_what_limits_a_server_is_named(described: Server, limit: str) -> None:
    assert Work(described, 8192, lengths_of((1000, 500))).limit == limit


def test_a_server_that_reserves_room_runs_as_many_as_fit_at_full_length() -> None:
    described = server(256, reserves=True)
    assert (described.sequences(65_536), described.sequences(8192), described.sequences(512)) == (16, 128, 256)


def test_a_long_mix_makes_a_server_slower() -> None:
    lengths = of_trace(like("azure"))
    short, long = lengths.between(0, 4096), lengths.between(4096, LONGEST)
    assert short is not None
    assert long is not None
    paces = [Work(server(), LONGEST, one).saturated().requests_per_second for one in (short, lengths, long)]
    assert paces == sorted(paces, reverse=True)


def test_reading_times_are_the_timings_own() -> None:
    prompts = [1, 128, 700, 8192, 20_000]
    timing: Any = Timing()
    assert prefill_ms(timing, np.array(prompts, float)).tolist() == [timing.prefill_ms(one) for one in prompts]
