"""What the two papers on pools by length published: their constants and results, to be held against what is computed.

A is arXiv 2604.08075 (April 2026), B is arXiv 2604.09613 (March 2026). Both are for Llama-3-70B on two A100-80GB, two
traces of 1,000 requests a second, and a target of 2 s for the P99 time to the first token.
"""

from __future__ import annotations

from dataclasses import dataclass

REQUESTS_PER_SECOND = 1000.0
THRESHOLD_TOKENS = 8192
TTFT_P99_MS = 2000.0
DOLLARS_PER_GPU_HOUR = 2.21  # B, for an A100-80GB


@dataclass(frozen=True, slots=True)
class PublishedPool:
    """A's set-up of one server."""

    max_model_len: int
    sequences: int
    step_tokens: int
    requests_per_second: float


HOMOGENEOUS = PublishedPool(65_536, 16, 8_192, 2.8)
SHORT = PublishedPool(8_192, 128, 16_384, 11.2)
LONG = PublishedPool(65_536, 16, 8_192, 2.8)


@dataclass(frozen=True, slots=True)
class PublishedSaving:
    """Shares of all servers (0 to 1) that two pools were said to save at 1,000 requests a second."""

    trace: str
    saving_a: float
    saving_b: float
    servers_homogeneous: int  # of A
    servers_split: int  # of A
    claimed_short_share: float  # of requests up to 8,192 tokens, as the papers say of this trace


# A's table of results; B's as its summaries give them. The papers say "92 % up to 8K" of Azure; for LMSYS they give
# no share at 8K, so it is that of the published distribution.
SAVINGS = (
    PublishedSaving("azure", 0.419, 0.166, 358, 208, 0.92),
    PublishedSaving("lmsys", 0.313, 0.385, 358, 246, 0.9965),
)
