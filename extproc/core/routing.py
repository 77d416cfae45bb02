"""Which pools may take a request, in order of preference."""

from __future__ import annotations

from extproc.core.estimate import Estimate
from extproc.core.policy import Model, Pool
from extproc.core.refusal import Reason, Refusal

NEAR_SHARE = 0.5  # a budget above this share of a pool's limit is worth one retry on the next pool


def candidates(model: Model, estimate: Estimate) -> tuple[str, ...] | Refusal:
    """The preferred pool first, then where the request may spill; a 400 where no pool could ever hold it.

    A pool is preferred where the conservative budget fits both the threshold and its `max_model_len`; the longest
    takes what fits none. Spilling goes to longer pools, and to shorter ones only where the budget fits them.
    """
    if estimate.longest_likely > model.max_model_len:
        return _too_long(model, estimate)
    fitting = [pool for pool in model.pools if _fits(model, pool, estimate)]
    longer = [pool for pool in model.pools if pool not in fitting and pool.max_model_len >= estimate.longest_likely]
    if not fitting:
        return (model.pools[-1].name,)
    ordered = [*fitting, *longer]
    return tuple(pool.name for pool in ordered) if model.routing.spill else (ordered[0].name,)


def near_limit(model: Model, pool_name: str, estimate: Estimate) -> bool:
    """Whether a server of this pool may well find the request too long, while a longer pool exists."""
    pool = model.pool(pool_name)
    return pool is not model.pools[-1] and estimate.budget > NEAR_SHARE * _limit(model, pool)


def _limit(model: Model, pool: Pool) -> int:
    return pool.max_model_len if pool is model.pools[-1] else min(pool.max_model_len, model.routing.threshold_tokens)


def _fits(model: Model, pool: Pool, estimate: Estimate) -> bool:
    return estimate.budget <= _limit(model, pool)


def _too_long(model: Model, estimate: Estimate) -> Refusal:
    message = (
        f"This model's maximum context length is {model.max_model_len} tokens. However, your request needs about "
        f"{estimate.longest_likely} tokens (prompt and the most it may generate). Please shorten the messages or "
        "lower the maximum of tokens."
    )
    return Refusal(400, Reason.CONTEXT_LENGTH_EXCEEDED, message, param="messages")
