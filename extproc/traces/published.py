"""Traces drawn from published distributions of length: the project ships no trace, only quantiles and means as facts.

Totals: vllm-project/semantic-router, src/fleet-sim/fleet_sim/data (Apache-2.0), to six digits. Azure's are those of
its public trace of 2023, both files together. Means of the answers: Azure's from the same trace; LMSYS's from the
papers on token-budget routing (arXiv 2604.08075, 2604.09613). How answers share a total is our own model.
"""

from __future__ import annotations

import numpy as np

from extproc.traces.outputs import Outputs
from extproc.traces.quantiles import Quantiles
from extproc.traces.trace import Times, Trace

AZURE = Quantiles(
    "Azure 2023",
    (
        (64, 0.008373), (128, 0.028171), (256, 0.067589), (512, 0.288629), (768, 0.364272), (1024, 0.404470),
        (1536, 0.656874), (2048, 0.779847), (3072, 0.868654), (4096, 0.898208), (6144, 0.975803), (8192, 0.999965),
        (12288, 0.999965), (16384, 1.0),
    ),
)  # fmt: skip
# 19,366 conversations of 211.1 and 8,819 completions of code of 27.9 tokens; the variation is that of both together.
AZURE_OUTPUTS = Outputs(mean_tokens=153.8, variation=1.06)

LMSYS = Quantiles(
    "LMSYS",
    (
        (64, 0.131439), (128, 0.235947), (256, 0.382477), (512, 0.638327), (768, 0.757983), (1024, 0.830662),
        (1536, 0.908860), (2048, 0.948285), (3072, 0.972866), (4096, 0.983742), (6144, 0.992885), (8192, 0.996531),
        (12288, 0.998633), (16384, 0.999265), (24576, 0.999656), (32768, 0.999794), (49152, 0.999839), (65536, 1.0),
    ),
)  # fmt: skip
LMSYS_OUTPUTS = Outputs(
    mean_tokens=214.5, variation=0.81
)  # the variation of the arena trace, which is of the same site

LIKE = {"azure": (AZURE, AZURE_OUTPUTS), "lmsys": (LMSYS, LMSYS_OUTPUTS)}


def azure(requests: int, requests_per_second: float, seed: int, burstiness: float = 1.0) -> Trace:
    return from_quantiles(AZURE, AZURE_OUTPUTS, requests, requests_per_second, seed, burstiness)


def lmsys(requests: int, requests_per_second: float, seed: int, burstiness: float = 1.0) -> Trace:
    return from_quantiles(LMSYS, LMSYS_OUTPUTS, requests, requests_per_second, seed, burstiness)


def from_quantiles(
    totals: Quantiles,
    outputs: Outputs,
    requests: int,
    requests_per_second: float,
    seed: int,
    burstiness: float = 1.0,
) -> Trace:
    """Independent requests. A seed's lengths are the same at every rate and burstiness.

    `burstiness` is the gaps' standard deviation over their mean: 1 is Poisson, 0 a metronome, more comes in bursts.
    Raises TraceError where answers of such a mean do not fit the totals.
    """
    lengths, times = np.random.default_rng(seed).spawn(2)
    total = totals.tokens_at(lengths.random(requests))
    output = outputs.fitted(totals).draw(total, lengths)
    return Trace(
        source=f"drawn from quantiles of {totals.name}, seed {seed}",
        arrival_s=arrivals(requests, requests_per_second, burstiness, times),
        prompt_tokens=total - output,
        output_tokens=output,
        client=np.zeros(requests, np.int64),
    )


def arrivals(requests: int, requests_per_second: float, burstiness: float, source: np.random.Generator) -> Times:
    """The first at 0, then gaps from a gamma distribution."""
    mean_s = 1 / requests_per_second
    if burstiness == 0:
        gaps = np.full(requests, mean_s)
    else:
        gaps = source.gamma(1 / burstiness**2, mean_s * burstiness**2, requests)
    times: Times = np.cumsum(gaps)
    return times - times[:1]
