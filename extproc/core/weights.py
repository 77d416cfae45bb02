"""How much an entitlement weighs beside others of its tier when capacity is scarce: class, SLO, over-use, debt.

The algebra and the constants are our own choice; `policy.Sharing` holds those that can be set.
"""

from __future__ import annotations

import numpy as np

from extproc.core.policy import ServiceClass, Sharing
from extproc.core.seen import Column

LEAST_URGENCY, MOST_URGENCY = 0.5, 2.0  # two SLOs differ by a factor of four at most, which full debt outweighs


def of_class(sharing: Sharing, service_class: ServiceClass) -> float:
    """What is promised is set aside, not weighed; what a promised class wants above its base weighs as elastic."""
    match service_class:
        case ServiceClass.SPOT:
            return sharing.spot_weight
        case ServiceClass.PREEMPTIBLE:
            return sharing.preemptible_weight
        case _:
            return sharing.elastic_weight


def urgency(sharing: Sharing, slo_ttft_ms: int | None) -> float:
    if slo_ttft_ms is None:
        return 1.0
    factor = (sharing.slo_reference_ms / max(1, slo_ttft_ms)) ** sharing.slo_exponent
    return min(MOST_URGENCY, max(LEAST_URGENCY, float(factor)))


def weights(sharing: Sharing, constant: Column, use: Column, debt: Column) -> Column:
    """Constant: class times urgency. `use` is in units of the base; what is below it costs nothing.

    Negative debt, of who has had more than its base, lowers nothing: over-use is counted already.
    """
    overuse = 1.0 + sharing.overuse_discount * np.maximum(0.0, use - 1.0)
    boost: Column = np.exp(sharing.debt_gain * np.maximum(0.0, debt))
    return constant / overuse * boost
