"""A real Envoy before real workers, whose ledgers do what a test says, and a model server that does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from extproc.core.settings import Settings
from extproc.envoy_config import Deployment, dump, static_config
from tests.edge.lending import Lender, Lending, lender, with_tenants
from tests.edge.sidecars import SETTINGS, until
from tests.envoy.fakes import ModelServer, free_port
from tests.envoy.running import Envoy, running

CHAT = "/v1/chat/completions"
STREAM = {
    "model": "llama",
    "messages": [{"role": "user", "content": "Hello!"}],
    "max_tokens": 5,
    "stream": True,
    "content_type": "text/event-stream",
}
PAUSED = {**STREAM, "pause": True, "first": "data: {}\n\n"}  # goes on when the server is told


@dataclass(frozen=True, slots=True)
class Fleet:
    envoy: Envoy
    workers: list[Lender]
    server: ModelServer

    @property
    def worker(self) -> Lender:
        [only] = self.workers
        return only

    def waiting(self) -> list[int]:
        """Requests that wait for room, by worker."""
        return [len(worker.ledger.waiting) for worker in self.workers]

    def borrowed(self) -> list[str]:
        return [lease for worker in self.workers for lease in worker.ledger.borrowed]

    def post(self, tenant: str, body: dict[str, Any], path: str = CHAT) -> asyncio.Task[aiohttp.ClientResponse]:
        """A request under way: done once its answer has begun."""

        async def begin() -> aiohttp.ClientResponse:
            url = self.envoy.url + path
            return await self.envoy.client.post(url, json=body, headers={"authorization": f"Bearer sk-{tenant}"})

        return asyncio.create_task(begin())


async def come_true(condition: Callable[[], bool]) -> None:
    async def true() -> bool:
        return condition()

    await until(true)


@asynccontextmanager
async def fleet(
    directory: Path, *, workers: int = 1, classic: bool = False, max_body_bytes: int = 1 << 20
) -> AsyncIterator[Fleet]:
    """With `classic`, Envoy sends the headers in a message of their own, as managed gateways do."""
    async with AsyncExitStack() as life:
        server = await life.enter_async_context(ModelServer())
        settings = replace(settings_for(server.url), max_body_bytes=max_body_bytes)
        lenders = [
            await life.enter_async_context(lender(directory / f"{number}.sock", Lending(), settings))
            for number in range(workers)
        ]
        deployment = Deployment(tuple(one.address for one in lenders), port=free_port(), admin_port=free_port())
        config = static_config(settings, deployment)
        if classic:
            _send_headers(config)
        file = directory / "envoy.yaml"
        file.write_text(dump(config))
        envoy = await life.enter_async_context(running(file, deployment.port, deployment.admin_port))
        yield Fleet(envoy, lenders, server)


def settings_for(url: str) -> Settings:
    """With every pool on this server."""
    settings = with_tenants(SETTINGS)
    models = tuple(
        replace(model, pools=tuple(replace(pool, endpoints=(url,)) for pool in model.pools))
        for model in settings.policy.models
    )
    return replace(settings, policy=replace(settings.policy, models=models))


def _send_headers(config: dict[str, Any]) -> None:
    [listener] = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    [ext_proc] = [one["typed_config"] for one in manager["http_filters"] if one["name"].endswith("ext_proc")]
    ext_proc["processing_mode"]["request_header_mode"] = "SEND"
