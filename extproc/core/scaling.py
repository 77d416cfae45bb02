"""How many servers a pool should have.

Enough for what is promised and in demand: at once when that grows, fewer once fewer have been enough for a while.
"""

from __future__ import annotations

import math

import numpy as np

from extproc.core.policy import UNITS, Pool, Scaling
from extproc.core.seen import Column

History = tuple[tuple[int, int], ...]  # (ms, servers): later ones need fewer, or they would have replaced the earlier

ROUNDING = 1e-9  # of a server: neither a last binary digit nor the tail of a decaying average asks for a whole one
SLOTS = 60  # the window is remembered in so many parts: the history stays short whatever the tick


def needed(pool: Pool, scaling: Scaling, promised: Column, demanded: Column) -> int:
    """Servers for the promises in full, and for the demand beside them at the target utilisation. Each is (3,)."""
    server = np.array([getattr(pool.server_capacity, unit) for unit in UNITS], dtype=np.float64)
    wanted = promised + demanded / scaling.target_utilisation
    return max(math.ceil(np.max(promised / server)), math.ceil(np.max(wanted / server) - ROUNDING))


def desired(
    pool: Pool, scaling: Scaling, promised: Column, demanded: Column, history: History, at_ms: int
) -> tuple[int, History]:
    """Servers the pool should have, and the history for the next call.

    More at once, fewer only down to the most that was needed within `scale_down_seconds`: the stabilisation window of
    Kubernetes' HorizontalPodAutoscaler. So no fall follows a rise within it. An empty history holds nothing back:
    begin it with the servers that run, as that autoscaler does, lest a first look at no demand ends them.
    """
    servers = needed(pool, scaling, promised, demanded)
    window_ms = scaling.scale_down_seconds * 1000
    # After a failover Redis' clock may stand earlier: what is later than now would else hold back for longer.
    recent = [(min(ms, at_ms), count) for ms, count in history if ms > at_ms - window_ms]
    while recent and recent[-1][1] <= servers:
        recent.pop()
    slot_ms = max(1, window_ms // SLOTS)
    if recent and recent[-1][0] // slot_ms == at_ms // slot_ms:
        recent[-1] = (at_ms, recent[-1][1])  # of one slot the most counts, from its end: never too early
    else:
        recent.append((at_ms, servers))
    return recent[0][1], tuple(recent)
