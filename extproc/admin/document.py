"""The JSON document of `/api/v1/state`: what was promised beside what is in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from extproc.core.policy import Entitlement, Model, Policy, Pool, Vector
from extproc.ledger import EntitlementState, ModelState, PoolState


def document(
    policy: Policy,
    states: Mapping[str, ModelState],
    degraded: bool,
) -> dict[str, Any]:
    """Everything the policy names, and nothing else; what the ledger does not know yet is idle.

    Args:
        policy: the models and entitlements to show.
        states: by model name.
        degraded: whether requests are decided without the shared state.
    """
    models = {
        model.name: _model(model, policy.entitlements_of(model.name), states.get(model.name, ModelState()))
        for model in policy.models
    }
    return {"models": models, "degraded": degraded}


def _model(model: Model, entitlements: tuple[Entitlement, ...], state: ModelState) -> dict[str, Any]:
    return {
        "pools": {
            pool.name: _pool(pool, state.pools.get(pool.name, PoolState(in_use=Vector()))) for pool in model.pools
        },
        "entitlements": {
            entitlement.name: _entitlement(entitlement, state.entitlements.get(entitlement.name))
            for entitlement in entitlements
        },
        "leases": state.leases,
        "bytes_per_token": dict(state.bytes_per_token),
    }


def _pool(pool: Pool, state: PoolState) -> dict[str, Any]:
    """Before the first tick all servers count as live, and nobody knows how many there should be."""
    servers = len(pool.endpoints) if state.servers is None else state.servers
    return {
        "capacity": asdict(pool.server_capacity.times(servers)),
        "in_use": asdict(state.in_use),
        "servers": servers,
        "desired": state.desired,
    }


def _entitlement(entitlement: Entitlement, known: EntitlementState | None) -> dict[str, Any]:
    state = known or _untouched(entitlement)
    return {
        "class": entitlement.service_class.value,
        "base": asdict(entitlement.base),
        "burst": asdict(entitlement.caps),
        # Before the first tick everybody's share is the base, and the configured burst the cap.
        "share": asdict(state.share or entitlement.base),
        "cap": asdict(state.cap or entitlement.caps),
        "in_use": asdict(state.in_use),
        "peak": asdict(state.peak),
        "balance_tokens": state.balance_tokens,
        "settled": {"prompt": state.settled_prompt_tokens, "completion": state.settled_completion_tokens},
        "debt": state.debt,
        "weight": state.weight,
        "waiting": state.waiting,
    }


def _untouched(entitlement: Entitlement) -> EntitlementState:
    """Where nobody has used an entitlement yet: its buckets are full."""
    full = entitlement.caps.tokens_per_second * entitlement.window_seconds
    return EntitlementState(in_use=Vector(), peak=Vector(), balance_tokens=full)
