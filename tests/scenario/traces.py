"""Small traces of several clients, and where the real ones may lie."""

from __future__ import annotations

import random
from pathlib import Path

from extproc.scenario.arena import Ask
from tests.traces.published import published

ARENA = "vtc_lmsys_arena_trace.csv"


def arena_trace() -> Path:
    """Skips the test where it is not there."""
    return published(ARENA)


def uneven(seconds: float = 120.0) -> tuple[Ask, ...]:
    """One client asks for more than the server can give, four for little, all of the same size on average."""
    source = random.Random(7)
    times = [("busy", 4.0), *((f"light-{i}", 0.1) for i in range(4))]
    arrivals = []
    for client, per_second in times:
        at = source.expovariate(per_second)
        while at < seconds:
            arrivals.append((at * 1000, client, source.randint(20, 400), source.randint(50, 350)))
            at += source.expovariate(per_second)
    return tuple(Ask(number, *arrival) for number, arrival in enumerate(sorted(arrivals)))


def write(path: Path, asks: tuple[Ask, ...]) -> Path:
    rows = [f"{ask.at_ms / 1000},{ask.client},{ask.prompt_tokens},{ask.output_tokens}" for ask in asks]
    path.write_text("\n".join(["req_time_s,client,input_tokens,output_tokens", *rows, ""]))
    return path
