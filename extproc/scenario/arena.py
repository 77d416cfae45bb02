"""The arena trace of VTC's artifact: its requests, a server as fast as the one it ran on, and what was published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from extproc.sim.batching import Slots
from extproc.sim.timing import Curve, Timing, linear_prefill
from extproc.traces.arena import ARENA
from extproc.traces.rows import collect

MAX_MODEL_LEN = 4096

# Llama-2-7B on an A10G with a pool of 10,000 KV tokens, as VTC's artifact ran it. Decoding: the time of a token in
# its log of the arena trace, about 40 ms while few run and 44 ms at the usual 23, prefills of others included.
# Reading a prompt: its profiled cost, 0.21 ms a token. Scaled by a few per cent so that first come, first served
# takes the published 777 tokens a second.
SERVER = Slots(max_num_seqs=256, kv_tokens=10_000)
TIMING = Timing(linear_prefill(202.0), Curve(((1, 38.5), (8, 40.0), (24, 42.4), (48, 47.0))))


@dataclass(frozen=True, slots=True)
class Ask:
    number: int
    at_ms: float
    client: str
    prompt_tokens: int
    output_tokens: int

    @property
    def id(self) -> str:
        return str(self.number)


@dataclass(frozen=True, slots=True)
class Row:
    """How one order of service fared. Differences in weighted tokens a second."""

    order: str
    server: str
    largest: float
    mean: float
    variance: float
    tokens_per_second: float
    refused: int
    ttft_p50_seconds: float
    ttft_p99_seconds: float


MEASURED = "A10G, published"
REQUESTS, CLIENTS = 1500, 27
# VTC's table for the arena trace, recomputed from the logs of its artifact, with first-token times from the same logs.
PUBLISHED = (
    Row("FCFS", MEASURED, 759.97, 433.53, 32112, 777, 0, 39.1, 137),
    Row("LCF", MEASURED, 750.49, 323.82, 29089, 778, 0, 3.2, 231),
    Row("VTC", MEASURED, 368.40, 251.66, 6549, 779, 0, 4.9, 212),
    Row("VTC, lengths known", MEASURED, 329.46, 227.51, 4476, 781, 0, 7.0, 212),
    Row("20 requests a minute", MEASURED, 446.76, 195.71, 7450, 694, 342, 0.63, 18),
    Row("5 requests a minute", MEASURED, 143.86, 83.58, 1020, 340, 919, 0.13, 0.69),
)


def read(path: Path) -> tuple[Ask, ...]:
    """A trace with the columns req_time_s, client, input_tokens and output_tokens, in the order of time.

    Raises TraceError, and OSError where there is no such file.
    """
    trace = collect([path], ARENA, MAX_MODEL_LEN)
    columns = zip(
        (trace.arrival_s * 1000).tolist(),
        (trace.clients[index] for index in trace.client),
        trace.prompt_tokens.tolist(),
        trace.output_tokens.tolist(),
        strict=True,
    )
    return tuple(Ask(number, *values) for number, values in enumerate(columns))
