"""The configuration file of a run: what is promised to whom, in compressed time, or the same without any limit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from extproc.core.policy import ServiceClass

MODEL = "model"
POOL = "default"
MAX_MODEL_LEN = 4096
SLOT_TOKENS_PER_SECOND = 15  # 240 tokens a second over 16 slots
# What a slot is worth of the rates in the file: a third more than it generates, so that slots are what runs out first.
SLOT_RATE = 20
SLOT_KV_TOKENS = MAX_MODEL_LEN
WINDOW_SECONDS = 10
TICK_SECONDS = 1.0
DEBT_SECONDS = 30.0
SLO_REFERENCE_SECONDS = 1.0
SHORTEST_TICK_MS = 50
NO_LIMIT = 50_000  # slots of each tenant

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    service_class: ServiceClass
    slots: int  # its base; for spot its cap
    burst_slots: int = 0  # 0: none above the base
    slo_seconds: float = 0.0  # to the first token; 0: none
    max_wait_seconds: float = 0.0

    @property
    def key(self) -> str:
        return f"sk-scenario-{self.name}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Identical servers of one pool."""

    servers: int
    slots: int  # of one server


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run is about; times in scenario seconds."""

    fleet: Fleet
    tenants: tuple[Tenant, ...]
    headroom_requests: int
    limited: bool = True  # False: everything is admitted, and queues in the servers


def document(terms: Terms, endpoints: Sequence[str], speed: float) -> Json:
    """The file's content. All times in it are divided by the speed, all rates multiplied."""
    slots = terms.fleet.slots if terms.limited else NO_LIMIT * len(terms.tenants)
    pool = {"endpoints": list(endpoints), "max_model_len": MAX_MODEL_LEN, "capacity": units(slots, speed)}
    model = {
        "name": MODEL,
        "pools": {POOL: pool},
        "reserve": "max_tokens",
        "cost": {"prompt": 0.0, "cached_prompt": 0.0, "completion": 1.0},  # a token is a generated one
        "sharing": {
            "headroom_requests": terms.headroom_requests,
            "debt_seconds": DEBT_SECONDS / speed,
            "slo_reference_ms": milliseconds(SLO_REFERENCE_SECONDS, speed),
        },
    }
    return {
        "tick_ms": max(SHORTEST_TICK_MS, milliseconds(TICK_SECONDS, speed)),
        "models": [model],
        "entitlements": [entitlement(one, speed) if terms.limited else unlimited(one) for one in terms.tenants],
    }


def entitlement(tenant: Tenant, speed: float) -> Json:
    found: Json = {
        **_who(tenant, tenant.service_class),
        **units(tenant.slots, speed),
        "burst": {**units(tenant.burst_slots or tenant.slots, speed), "seconds": max(1, round(WINDOW_SECONDS / speed))},
        "max_wait_ms": round(tenant.max_wait_seconds * 1000 / speed),
    }
    if tenant.slo_seconds:
        found["slo"] = {"ttft_ms": milliseconds(tenant.slo_seconds, speed)}
    return found


def unlimited(tenant: Tenant) -> Json:
    return {**_who(tenant, ServiceClass.GUARANTEED), **units(NO_LIMIT, speed=1)}


def _who(tenant: Tenant, service_class: ServiceClass) -> Json:
    key_hash = "sha256:" + hashlib.sha256(tenant.key.encode()).hexdigest()
    return {"name": tenant.name, "model": MODEL, "class": service_class.value, "keys": [key_hash]}


def units(slots: int, speed: float) -> Json:
    rate = round(slots * SLOT_RATE * speed)
    return {"tokens_per_second": rate, "kv_tokens": slots * SLOT_KV_TOKENS, "concurrency": slots}


def milliseconds(seconds: float, speed: float) -> int:
    return max(1, round(seconds * 1000 / speed))


def server_url(fleet: Fleet) -> str:
    """A simulated server that gives each of its slots 15 tokens a second, however many are taken."""
    rate = fleet.slots * SLOT_TOKENS_PER_SECOND
    # Prompts are read almost at once: the paper's 240 tokens a second are what the server generates all in all.
    return f"sim://?tokens_per_second={rate}&prefill_ms_per_1k=100"
