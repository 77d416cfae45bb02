"""How long a simulated server takes: prefill time by prompt length, decode-step time by batch size."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Curve:
    """Straight lines between points; constant before the first, the last line's slope after the last."""

    points: tuple[tuple[float, float], ...]  # (x, ms), x ascending, at least one

    def __post_init__(self) -> None:
        if not self.points or any(right[0] <= left[0] for left, right in pairwise(self.points)):
            raise ValueError("a curve needs points with ascending x")
        if any(not math.isfinite(ms) or ms < 0 for _, ms in self.points):
            raise ValueError("a curve's times must be finite and not negative")

    def at(self, x: float) -> float:
        points = self.points
        right = min(bisect_left(points, (x,)), len(points) - 1)
        if right == 0:
            return points[0][1]
        (x0, y0), (x1, y1) = points[right - 1], points[right]
        return max(0.0, y0 + (y1 - y0) * (x - x0) / (x1 - x0))

    def divided_by(self, divisor: float) -> Curve:
        return Curve(tuple((x, ms / divisor) for x, ms in self.points))


# Medians of five runs or more, llama2-70b on eight A100-80GB or H100-80GB (tensor parallel 8), from Splitwise's
# performance data (ISCA 2024, github.com/Mutinifni/splitwise-sim, data/perf_model.csv, MIT). Prefill: batch 1,
# prompt_time by prompt_size. Decode: prompts of 512 tokens, token_time by batch_size. The H100's 128 tokens took
# 58.2 ms in the median, longer than 256: they count as no slower, as a part of a prompt cannot take less than no time.
A100_LLAMA2_70B_PREFILL = Curve(
    ((128, 65.3), (256, 66.8), (512, 93.0), (1024, 154.5), (2048, 274.2), (4096, 661.2), (8192, 1549.8)),
)
A100_LLAMA2_70B_DECODE = Curve(
    ((1, 44.9), (2, 44.9), (4, 45.8), (8, 46.5), (16, 50.4), (32, 53.0), (64, 71.6)),
)
H100_LLAMA2_70B_PREFILL = Curve(
    ((128, 51.7), (256, 51.7), (512, 53.9), (1024, 77.9), (2048, 136.8), (4096, 390.3), (8192, 844.9)),
)
H100_LLAMA2_70B_DECODE = Curve(
    ((1, 29.8), (2, 30.3), (4, 31.8), (8, 32.5), (16, 34.2), (32, 38.6), (64, 50.2)),
)


@dataclass(frozen=True, slots=True)
class Timing:
    prefill: Curve = A100_LLAMA2_70B_PREFILL  # x: prompt tokens
    decode: Curve = A100_LLAMA2_70B_DECODE  # x: sequences in the batch

    def prefill_ms(self, prompt_tokens: int) -> float:
        return self.prefill.at(prompt_tokens) if prompt_tokens > 0 else 0.0

    def decode_step_ms(self, batch: int) -> float:
        return self.decode.at(batch) if batch > 0 else 0.0

    def step_ms(self, decoding: int, new_tokens: int, context_tokens: int) -> float:
        """One engine step: `decoding` sequences gain a token, `new_tokens` of prompts are read.

        Chunks of a long prompt add up to that prompt's prefill time: each costs what it adds after
        `context_tokens` (the longest part already read). Short prompts read together share the fixed cost.
        Reading is added to decoding in full, although a GPU overlaps some of it: the slower side of the truth.
        """
        return self.decode_step_ms(decoding) + self.read_ms(new_tokens, context_tokens)

    def read_ms(self, new_tokens: int, context_tokens: int) -> float:
        """What reading adds to a step."""
        if not new_tokens:
            return 0.0
        return self.prefill_ms(context_tokens + new_tokens) - self.prefill_ms(context_tokens)

    def faster(self, speed: float) -> Timing:
        return Timing(self.prefill.divided_by(speed), self.decode.divided_by(speed))


MEASURED = {
    "a100": Timing(),
    "h100": Timing(H100_LLAMA2_70B_PREFILL, H100_LLAMA2_70B_DECODE),
}


def constant_decode(step_ms: float) -> Curve:
    return Curve(((1, step_ms),))


def linear_prefill(ms_per_1k: float) -> Curve:
    return Curve(((0, 0.0), (1000, ms_per_1k)))


def decode_for(tokens_per_second: float, sequences: int) -> Curve:
    """The decode time at which a full batch generates the given tokens a second, whatever the batch size.

    16 sequences at 240 tokens a second are 15 a second each: a step of 66.7 ms.
    """
    return constant_decode(1000.0 * sequences / tokens_per_second)
