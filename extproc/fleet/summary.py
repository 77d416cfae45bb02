"""An outcome in figures, pool by pool and in all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extproc.fleet.simulation import Flags, Outcome
from extproc.sim.batch import Use

ALL = "all"


@dataclass(frozen=True, slots=True)
class Figures:
    """Rates and shares are of the time from the fleet's first arrival to its last end. NaN: there was none."""

    pool: str
    servers: int
    requests: int
    served_per_second: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float  # time per output token after the first, of answers with two or more
    tpot_p99_ms: float
    preemptions_per_1000: float  # requests
    refused: int
    misrouted: int
    truncated: int
    spilled: int  # into this pool
    slots_used: float  # share, mean over time
    kv_used: float


def figures(outcome: Outcome) -> list[Figures]:
    """One for each pool, and where there are several, one for all. A refused request is in no pool, but in all."""
    rows = [_of_pool(outcome, number) for number in range(len(outcome.fleet.pools))]
    return rows if len(rows) == 1 and not outcome.refused.any() else [*rows, overall(outcome)]


def overall(outcome: Outcome) -> Figures:
    everything = np.ones(len(outcome.pool), np.bool_)
    return _of(outcome, everything, ALL, tuple(range(len(outcome.fleet.pools))))


def percentile(values: NDArray[np.float64], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else math.nan


def ttft_ms(outcome: Outcome, which: Flags) -> NDArray[np.float64]:
    """Of those that had a first token."""
    waits = (outcome.first_token_ms - outcome.arrival_ms)[which]
    return waits[np.isfinite(waits)]


def _of_pool(outcome: Outcome, number: int) -> Figures:
    return _of(outcome, outcome.pool == number, outcome.fleet.pools[number].name, (number,))


def _of(outcome: Outcome, which: Flags, name: str, pools: tuple[int, ...]) -> Figures:
    waits, per_token = ttft_ms(outcome, which), _tpot_ms(outcome, which)
    requests, seconds = int(which.sum()), outcome.duration_ms / 1000.0
    served = int((which & ~outcome.refused).sum())
    slots_used, kv_used = _shares(outcome, pools)
    return Figures(
        pool=name,
        servers=sum(outcome.fleet.pools[number].servers for number in pools),
        requests=requests,
        served_per_second=served / seconds if seconds else 0.0,
        ttft_p50_ms=percentile(waits, 50),
        ttft_p99_ms=percentile(waits, 99),
        tpot_p50_ms=percentile(per_token, 50),
        tpot_p99_ms=percentile(per_token, 99),
        preemptions_per_1000=1000.0 * float(outcome.preemptions[which].sum()) / max(1, requests),
        refused=requests - served,
        misrouted=int(outcome.misrouted[which].sum()),
        truncated=int(outcome.truncated[which].sum()),
        spilled=int(outcome.spilled[which].sum()),
        slots_used=slots_used,
        kv_used=kv_used,
    )


def _tpot_ms(outcome: Outcome, which: Flags) -> NDArray[np.float64]:
    several = which & (outcome.generated > 1)
    spent = outcome.end_ms[several] - outcome.first_token_ms[several]
    return spent / (outcome.generated[several] - 1)


def _shares(outcome: Outcome, pools: tuple[int, ...]) -> tuple[float, float]:
    used, room_sequences, room_kv = Use(), 0, 0
    for number in pools:
        pool = outcome.fleet.pools[number]
        used.add(outcome.use[number])
        room_sequences += pool.servers * pool.slots.max_num_seqs
        room_kv += pool.servers * pool.slots.kv_tokens
    duration_ms = max(outcome.duration_ms, 1e-9)
    return used.sequence_ms / room_sequences / duration_ms, used.kv_token_ms / room_kv / duration_ms
