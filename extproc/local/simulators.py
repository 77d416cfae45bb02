"""Simulated vLLM servers: one process for each `sim://` endpoint of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from extproc.core.policy import SIMULATED, Policy, Vector
from extproc.envoy_config import SimulatedServer
from extproc.local.faults import StackError
from extproc.local.processes import Child, Children
from extproc.local.programs import tokenpool
from extproc.sim.options import options_from_url

READY = "tokenpool sim is ready: "  # then its URL; `tokenpool sim` prints it


@dataclass(frozen=True, slots=True)
class Simulated:
    """One `sim://` endpoint, with all that its simulator depends on."""

    place: SimulatedServer
    url: str
    aliases: tuple[str, ...]
    max_model_len: int
    capacity: Vector

    @property
    def name(self) -> str:
        return f"sim {self.place.model}/{self.place.pool}/{self.place.index}"


def simulated(policy: Policy) -> Iterator[Simulated]:
    for model in policy.models:
        for pool in model.pools:
            for index, url in enumerate(pool.endpoints):
                if url.startswith(SIMULATED):
                    place = SimulatedServer(model.name, pool.name, index)
                    yield Simulated(place, url, model.aliases, pool.max_model_len, pool.server_capacity)


def check(policy: Policy) -> None:
    """Raises StackError where an endpoint's parameters are wrong, before its simulator ends over them."""
    for one in simulated(policy):
        try:
            options_from_url(one.url, model=one.place.model, max_model_len=one.max_model_len, capacity=one.capacity)
        except ValueError as error:
            raise StackError(f"an endpoint of pool {one.place.pool} of {one.place.model}: {error}") from error


async def start(children: Children, server: Simulated) -> Child:
    """Started, not yet ready."""
    return await children.start("sim", command(server), name=server.name)


async def listening(child: Child) -> str:
    """Where it listens, once it does."""
    line = await child.line(READY)
    return line.partition(READY)[2].strip()


def command(server: Simulated) -> tuple[str, ...]:
    return tokenpool(
        *("sim", "--url", server.url, "--model", server.place.model),
        *(part for alias in server.aliases for part in ("--alias", alias)),
        *("--max-model-len", str(server.max_model_len)),
        *("--kv-tokens", str(server.capacity.kv_tokens), "--concurrency", str(server.capacity.concurrency)),
        *("--host", "127.0.0.1", "--port", "0"),
    )
