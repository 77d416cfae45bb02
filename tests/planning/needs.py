"""Requests, servers and needs that several tests plan for."""

from __future__ import annotations

from functools import cache

import numpy as np

from extproc.planning.lengths import Lengths, of_trace
from extproc.planning.server import Server
from extproc.planning.sizing import Need
from extproc.sim.timing import Timing
from extproc.traces import published
from extproc.traces.trace import Trace

KV_TOKENS = 1_048_576
LONGEST = 65_536


@cache
def like(name: str, requests: int = 20_000) -> Trace:
    totals, outputs = published.LIKE[name]
    return published.from_quantiles(totals, outputs, requests, 100.0, seed=3)


def trace_of(*lengths: tuple[int, int]) -> Trace:
    """One request a second; prompt and output tokens of each."""
    prompts, outputs = (np.array(column) for column in zip(*lengths, strict=True))
    at = np.arange(len(prompts), dtype=float)
    return Trace("test", at, prompts, outputs, np.zeros(len(prompts), np.int64))


def lengths_of(*lengths: tuple[int, int]) -> Lengths:
    return of_trace(trace_of(*lengths))


def server(max_num_seqs: int = 64, *, kv_tokens: int = KV_TOKENS, reserves: bool = False) -> Server:
    return Server(Timing(), kv_tokens, max_num_seqs, reserves=reserves)


def need(
    lengths: Lengths | None = None,
    per_second: float = 50.0,
    *,
    ttft_p99_ms: float = 2000.0,
    held_up: float = 0.05,
    of: Server | None = None,
) -> Need:
    return Need(
        lengths=of_trace(like("azure")) if lengths is None else lengths,
        server=of or server(),
        max_model_len=LONGEST,
        requests_per_second=per_second,
        ttft_p99_ms=ttft_p99_ms,
        utilisation=0.85,
        held_up=held_up,
    )
