"""Which pools may take a request, in order of preference."""

from __future__ import annotations

from extproc.core.estimate import Estimate
from extproc.core.policy import Model
from extproc.core.refusal import Reason, Refusal

NEAR_SHARE = 0.5  # a budget above this share of a pool's length is worth one retry on the next pool


def candidates(model: Model, estimate: Estimate) -> tuple[str, ...] | Refusal:
    """The preferred pool first, then where the request may spill; a 400 where no pool could ever hold it.

    Preferred is the shortest pool whose threshold the conservative budget of the longest sequence keeps; the longest
    takes what keeps none. It spills to longer pools, the next one first, then to shorter ones that hold all of the
    budget: a server that is too short would cut the answer without a word.
    """
    if estimate.longest_likely > model.max_model_len:
        return _too_long(model, estimate)
    budget, last = estimate.sequence_budget, len(model.pools) - 1
    preferred = next((i for i in range(last) if budget <= threshold_tokens(model, i)), last)
    if not model.routing.spill:
        return (model.pools[preferred].name,)
    shorter = [pool for pool in reversed(model.pools[:preferred]) if budget <= pool.max_model_len]
    return tuple(pool.name for pool in (*model.pools[preferred:], *shorter))


def threshold_tokens(model: Model, index: int) -> int:
    """The largest budget of one sequence for which the pool of this index is preferred to longer ones."""
    pool = model.pools[index]
    if index == len(model.pools) - 1:
        return pool.max_model_len
    common = model.routing.threshold_tokens if index == 0 else pool.max_model_len
    return min(pool.max_model_len, pool.threshold_tokens or common)


def near_limit(model: Model, pool_name: str, estimate: Estimate) -> bool:
    """Whether a server of this pool may well find the request too long, while a longer pool exists."""
    pool = model.pool(pool_name)
    return pool is not model.pools[-1] and estimate.sequence_budget > NEAR_SHARE * pool.max_model_len


def _too_long(model: Model, estimate: Estimate) -> Refusal:
    message = (
        f"This model's maximum context length is {model.max_model_len} tokens. However, your request needs about "
        f"{estimate.longest_likely} tokens (prompt and the most it may generate). Please shorten the messages or "
        "lower the maximum of tokens."
    )
    return Refusal(400, Reason.CONTEXT_LENGTH_EXCEEDED, message, param="messages")
