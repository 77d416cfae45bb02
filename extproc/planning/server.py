"""What one server does of a mix of lengths: how fast, with how many sequences, limited by what.

The same server as the simulator's (`extproc.sim.batching`), in the mean: each step gives a token to every sequence that
decodes and reads prompts with what is left of its token budget. All formulas are our own, from that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from extproc.fleet import delays
from extproc.planning.lengths import Lengths
from extproc.sim.batching import STEP_TOKENS
from extproc.sim.timing import Timing

GRID = 256  # operating points between idle and saturated
MS = 1000.0


@dataclass(frozen=True, slots=True)
class Server:
    timing: Timing
    kv_tokens: int
    max_num_seqs: int
    step_tokens: int = STEP_TOKENS
    reserves: bool = False  # room for the longest request is set aside for each sequence, as the papers count slots

    def sequences(self, max_model_len: int) -> int:
        """The most that run at a time, as it is configured for requests up to this length."""
        return max(1, min(self.max_num_seqs, self.kv_tokens // max_model_len)) if self.reserves else self.max_num_seqs


@dataclass(frozen=True, slots=True)
class Pace:
    """A server at some load, in the mean."""

    requests_per_step: float
    step_ms: float
    decoding: float  # sequences

    @property
    def requests_per_second(self) -> float:
        return MS * self.requests_per_step / self.step_ms


class Work:
    """A mix of lengths on a server for requests up to a length."""

    def __init__(self, server: Server, max_model_len: int, lengths: Lengths) -> None:
        self.server = server
        self.lengths = lengths
        self.max_model_len = max_model_len
        self.read_ms = delays.prefill_ms(server.timing, lengths.prompt_tokens)  # (n,) alone on the server
        self.chunks = np.ceil(lengths.prompt_tokens / server.step_tokens)  # (n,)
        self.decode_steps = np.maximum(lengths.output_tokens - 1, 0.0)  # (n,) reading yields the first token
        self.shared_ms = min(server.timing.prefill_ms(1), float(self.read_ms.min()))  # prompts of one step pay it once

        self.steps = self.chunks + self.decode_steps  # (n,)
        self.mean_read_ms = lengths.mean(self.read_ms)
        self.mean_decode_steps = lengths.mean(self.decode_steps)
        self.mean_steps = lengths.mean(self.steps)
        held_tokens = lengths.prompt_tokens + self.decode_steps / 2
        self.held_tokens = lengths.mean(held_tokens * self.steps) / self.mean_steps  # of a sequence, over its steps
        self.allowed_sequences = server.sequences(max_model_len)
        # As many run on a saturated server as it may, or as its KV cache holds.
        self.sequences = max(1.0, min(self.allowed_sequences, server.kv_tokens / self.held_tokens))

    @property
    def limit(self) -> str:
        """What keeps a saturated server from more: sequences, KV tokens, or tokens of a step."""
        if self._most_by_room > self._most_by_tokens:
            return "step_tokens"
        return "sequences" if self.sequences >= self.allowed_sequences else "kv_tokens"

    @property
    def most_per_step(self) -> float:
        """Requests that begin, and end, in a step of a saturated server."""
        return min(self._most_by_room, self._most_by_tokens)

    @property
    def _most_by_room(self) -> float:
        return self.sequences / self.mean_steps

    @property
    def _most_by_tokens(self) -> float:
        return self.server.step_tokens / (self.lengths.mean(self.lengths.prompt_tokens) + self.mean_decode_steps)

    def pace(self, requests_per_step: float) -> Pace:
        decoding = requests_per_step * self.mean_decode_steps
        # The chance that a step reads at all, where prompts come independently of one another.
        reads = -math.expm1(-requests_per_step)
        read_ms = requests_per_step * (self.mean_read_ms - self.shared_ms) + reads * self.shared_ms
        return Pace(requests_per_step, self.server.timing.decode.at(max(1.0, decoding)) + read_ms, decoding)

    def saturated(self) -> Pace:
        return self.pace(self.most_per_step)
