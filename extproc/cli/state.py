"""The admin server's /api/v1/state, as far as the command line shows it."""

from __future__ import annotations

import msgspec


class Units(msgspec.Struct, frozen=True):
    tokens_per_second: float = 0
    kv_tokens: float = 0
    concurrency: float = 0


class Tokens(msgspec.Struct, frozen=True):
    prompt: float = 0
    completion: float = 0


class Pool(msgspec.Struct, frozen=True):
    capacity: Units
    in_use: Units
    servers: int
    desired: int | None = None


class Entitlement(msgspec.Struct, frozen=True):
    service_class: str = msgspec.field(name="class")
    share: Units
    cap: Units
    in_use: Units
    balance_tokens: float
    debt: float = 0
    waiting: int = 0
    settled: Tokens = Tokens()


class Model(msgspec.Struct, frozen=True):
    pools: dict[str, Pool]
    entitlements: dict[str, Entitlement]


class State(msgspec.Struct, frozen=True):
    models: dict[str, Model]
    degraded: bool = False
