"""Simulated vLLM servers: one process for each `sim://` endpoint of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from extproc.core.policy import Model, Policy, Pool
from extproc.envoy_config import SimulatedServer
from extproc.local.processes import Child, Children
from extproc.local.programs import tokenpool

SCHEME = "sim://"
READY = "tokenpool sim is ready: "  # then its URL; `tokenpool sim` prints it


@dataclass(frozen=True, slots=True)
class Simulated:
    """One `sim://` endpoint."""

    model: Model
    pool: Pool
    index: int  # among the pool's endpoints

    @property
    def place(self) -> SimulatedServer:
        return SimulatedServer(self.model.name, self.pool.name, self.index)

    @property
    def name(self) -> str:
        return f"sim {self.model.name}/{self.pool.name}/{self.index}"


def simulated(policy: Policy) -> Iterator[Simulated]:
    for model in policy.models:
        for pool in model.pools:
            for index, endpoint in enumerate(pool.endpoints):
                if endpoint.startswith(SCHEME):
                    yield Simulated(model, pool, index)


async def start(children: Children, server: Simulated) -> Child:
    """Started, not yet ready."""
    return await children.start("sim", command(server), name=server.name)


async def url(child: Child) -> str:
    """Where it listens, once it does."""
    line = await child.line(READY)
    return line.partition(READY)[2].strip()


def command(server: Simulated) -> tuple[str, ...]:
    capacity = server.pool.server_capacity
    aliases = [part for alias in server.model.aliases for part in ("--alias", alias)]
    return tokenpool(
        "sim",
        *("--url", server.pool.endpoints[server.index], "--model", server.model.name, *aliases),
        *("--max-model-len", str(server.pool.max_model_len)),
        *("--kv-tokens", str(capacity.kv_tokens), "--concurrency", str(capacity.concurrency)),
        *("--host", "127.0.0.1", "--port", "0"),
    )
