"""One Envoy with two sidecars and two pools, shared by the tests of what it does to a request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from extproc.core.policy import Model, Policy, Pool, Vector
from extproc.core.settings import Settings
from extproc.envoy_config import Deployment, dump, static_config
from tests.envoy.fakes import MODEL, ModelServer, Seen, Sidecar, free_port
from tests.envoy.running import Envoy, running

MAX_BODY_BYTES = 200_000
SHORT_LIMIT = 100  # prompt tokens


@dataclass(frozen=True, slots=True)
class Stack:
    envoy: Envoy
    seen: Seen
    short: ModelServer
    long: ModelServer


def two_pools(short: str, long: str) -> Policy:
    capacity = Vector(1000, 100_000, 16)
    pools = (Pool("short", (short,), 8192, capacity), Pool("long", (long,), 65536, capacity))
    return Policy((Model(MODEL, pools),), ())


def deployment_of(sidecars: list[Sidecar]) -> Deployment:
    addresses = tuple(f"127.0.0.1:{sidecar.port}" for sidecar in sidecars)
    return Deployment(addresses, port=free_port(), admin_port=free_port())


@pytest_asyncio.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    seen = Seen()
    async with AsyncExitStack() as life:
        sidecars = [await life.enter_async_context(Sidecar(seen, number)) for number in range(2)]
        short = await life.enter_async_context(ModelServer(SHORT_LIMIT))
        long = await life.enter_async_context(ModelServer())
        deployment = deployment_of(sidecars)
        settings = Settings(two_pools(short.url, long.url), max_body_bytes=MAX_BODY_BYTES)
        file = Path(tmp_path_factory.mktemp("stack")) / "envoy.yaml"
        file.write_text(dump(static_config(settings, deployment)))
        envoy = await life.enter_async_context(running(file, deployment.port, deployment.admin_port))
        yield Stack(envoy, seen, short, long)
