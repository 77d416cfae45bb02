"""Which first tokens are late, and which others have held up: by these two a fleet is sized."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from extproc.fleet.simulation import Outcome
from extproc.sim.timing import Timing

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def prefill_ms(timing: Timing, prompt_tokens: Floats) -> Floats:
    """`Timing.prefill_ms` of many prompts, each of at least one token."""
    distinct, which = np.unique(np.ceil(prompt_tokens), return_inverse=True)
    times: Floats = np.array([timing.prefill.at(one) for one in distinct.tolist()])
    return times[which]


def late(outcome: Outcome, target_ms: float) -> Flags:
    """(n,) whose first token comes after the target; of one that was refused it never comes."""
    return _waited_ms(outcome) > target_ms


def held_up(outcome: Outcome, target_ms: float, reading_ms: Floats) -> Flags:
    """(n,) whose first token others delay by more than the target, and than its own reading takes."""
    beside_reading: Flags = _waited_ms(outcome) - reading_ms > np.maximum(target_ms, reading_ms)
    return beside_reading


def _waited_ms(outcome: Outcome) -> Floats:
    return outcome.first_token_ms - outcome.arrival_ms
