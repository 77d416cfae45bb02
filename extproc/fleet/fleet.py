"""What a fleet is made of: pools of equal servers, shortest first, and how a server of a pool is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from extproc.sim.batch import Slots
from extproc.sim.timing import Timing


class FleetError(ValueError):
    """Raised where servers could not be as they are described. The message says which, and why."""


class Choice(StrEnum):
    """Which server of a pool takes the next request."""

    LEAST = "least"  # the one with the fewest requests, of all: as our Envoy chooses
    TURNS = "turns"  # round robin


@dataclass(frozen=True, slots=True)
class Pool:
    name: str
    servers: int
    max_model_len: int
    slots: Slots  # of one server
    timing: Timing


@dataclass(frozen=True, slots=True)
class Fleet:
    name: str
    pools: tuple[Pool, ...]  # at least one, ordered by max_model_len
    choice: Choice = Choice.LEAST
    spill: bool = False  # a request whose pool is full goes to another that has room and can hold it

    def __post_init__(self) -> None:
        lengths = [pool.max_model_len for pool in self.pools]
        if not self.pools or lengths != sorted(lengths):
            raise FleetError(f"fleet {self.name!r}: pools are needed, the one with the shortest requests first")
        if len({pool.name for pool in self.pools}) < len(self.pools):
            raise FleetError(f"fleet {self.name!r}: two pools have the same name")
        for pool in self.pools:
            if pool.servers < 1:
                raise FleetError(f"pool {pool.name!r}: at least one server is needed")
            if pool.slots.kv_tokens < pool.max_model_len:
                raise FleetError(
                    f"pool {pool.name!r}: a KV cache of {pool.slots.kv_tokens} tokens holds no request of "
                    f"{pool.max_model_len}; vLLM would not start"
                )

    @property
    def servers(self) -> int:
        return sum(pool.servers for pool in self.pools)
