"""One sidecar, two and five, each with its own workers, behind one Envoy: the same load gives the same totals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from extproc import config
from extproc.envoy_config import Deployment, write_xds
from extproc.redis_ledger import connect
from tests.app.conftest import Serve, free_port, started, until
from tests.app.conftest import url as url  # noqa: PLC0414 - a fixture
from tests.e2e.conftest import key_hash
from tests.e2e.stack import idle
from tests.envoy import running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

START_SECONDS = 120.0  # five sidecars are ten interpreters
SEED = 7
CHAT = "/v1/completions"


def configured(server: str) -> str:
    """What may run at once is the limit, never a rate or a busy machine: time must not decide here."""
    return f"""
redis_timeout_ms: 1900
models:
  - name: m
    pools:
      default:
        endpoints: ["{server}"]
        max_model_len: 16384
        capacity: {{tokens_per_second: 10000000, kv_tokens: 150000, concurrency: 60}}
entitlements:
  - {{name: promised, model: m, class: guaranteed, keys: ["{key_hash("sk-promised")}"],
     tokens_per_second: 1000000, kv_tokens: 40000, concurrency: 20}}
  - {{name: shared, model: m, class: elastic, keys: ["{key_hash("sk-shared")}"],
     tokens_per_second: 1000000, kv_tokens: 30000, concurrency: 15}}
  - {{name: crowd, model: m, class: dedicated, keys: ["{key_hash("sk-crowd")}"],
     tokens_per_second: 1000000, kv_tokens: 50000, concurrency: 10}}
"""


@dataclass
class Vllm:
    """Holds every request until it is told to answer all: nothing ends before everything was judged."""

    port: int = field(default_factory=free_port)
    arrived: int = 0
    answer: asyncio.Event = field(default_factory=asyncio.Event)
    runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_post(CHAT, self._complete)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.answer.set()
        assert self.runner is not None
        await self.runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _complete(self, request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        self.arrived += 1
        await self.answer.wait()
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": asked["max_tokens"]}
        return web.json_response({"object": "text_completion", "choices": [], "usage": usage})


@dataclass
class Load:
    """Requests whose verdicts are told apart by whether they reach the server."""

    http: aiohttp.ClientSession
    server: Vllm
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)  # by key and reason
    pending: list[asyncio.Task[None]] = field(default_factory=list)

    async def ask(self, key: str, prompt: int, output: int) -> None:
        body = {"model": "m", "prompt": [7] * prompt, "max_tokens": output}
        async with self.http.post(CHAT, json=body, headers={"authorization": f"Bearer {key}"}) as answer:
            await answer.read()
            if answer.status != 200:
                assert answer.status == 429, answer.headers.get("x-tokenpool-reason")
                self.refused[key, answer.headers["x-tokenpool-reason"]] += 1

    def start(self, key: str, prompt: int, output: int) -> None:
        self.pending.append(asyncio.create_task(self.ask(key, prompt, output)))

    async def judged(self) -> None:
        """Returns when every request has either reached the server or been refused."""

        async def so() -> bool:
            for ended in (task for task in self.pending if task.done()):
                ended.result()
            return self.server.arrived + self.refused.total() == len(self.pending)

        await until(so, START_SECONDS)

    async def end(self) -> None:
        self.server.answer.set()
        await asyncio.gather(*self.pending)


async def drive(load: Load) -> None:
    """One after another, of all sizes; then a hundred at once."""
    chance = random.Random(SEED)
    for _ in range(100):
        load.start(chance.choice(("sk-promised", "sk-shared")), chance.randint(1, 2000), chance.randint(1, 2000))
        await load.judged()
    for _ in range(100):
        load.start("sk-crowd", 50, 50)
    await load.judged()


@contextlib.asynccontextmanager
async def behind_one_envoy(
    folder: Path, url: str, count: int, server: Vllm
) -> AsyncIterator[tuple[Serve, aiohttp.ClientSession]]:
    text = configured(f"http://127.0.0.1:{server.port}")
    async with contextlib.AsyncExitStack() as stack:
        sidecars = []
        for number in range(count):
            own = folder / str(number)
            own.mkdir(parents=True)
            sidecars.append(await stack.enter_async_context(started(own, "--redis", url, workers=1, config=text)))
        for one in sidecars:
            await until(one.is_ready, START_SECONDS)
        port, admin_port = free_port(), free_port()
        deployment = Deployment(
            sidecars=tuple(address for one in sidecars for address in one.addresses), port=port, admin_port=admin_port
        )
        settings = config.load(folder / "0" / "tokenpool.yaml")
        bootstrap = write_xds(settings, deployment, folder / "envoy")
        envoy = await stack.enter_async_context(running.running(bootstrap, port, admin_port))
        http = await stack.enter_async_context(
            aiohttp.ClientSession(envoy.url, connector=aiohttp.TCPConnector(limit=0))
        )
        yield sidecars[0], http


@dataclass(frozen=True)
class Totals:
    refused: Counter[tuple[str, str]]
    tenants: dict[str, Any]  # what each has settled, and its peaks
    admitted_by_first: float  # of the sidecars


async def totals(folder: Path, url: str, count: int) -> Totals:
    client = connect(url)
    await client.flushall()
    await client.aclose()
    async with Vllm() as server, behind_one_envoy(folder, url, count, server) as (sidecar, http):
        load = Load(http, server)
        await drive(load)
        await load.end()

        async def all_settled() -> bool:
            return idle(await state_of(sidecar))

        await until(all_settled, START_SECONDS)
        tenants = (await state_of(sidecar))["models"]["m"]["entitlements"]
        shown = {name: (one["settled"], one["peak"]) for name, one in tenants.items()}
        return Totals(load.refused, shown, await sidecar.admitted())


async def state_of(sidecar: Serve) -> dict[str, Any]:
    async with sidecar.http.get(f"http://127.0.0.1:{sidecar.admin_port}/api/v1/state") as answer:
        return dict(await answer.json())


async def test_two_and_then_five_sidecars_give_the_same_totals_as_one(url: str, tmp_path: Path) -> None:
    one = await totals(tmp_path / "one", url, 1)
    assert one.admitted_by_first + one.refused.total() == 200
    assert one.tenants["crowd"][1]["concurrency"] == 10
    assert one.refused["sk-crowd", "concurrency"] == 90
    assert one.refused.keys() >= {("sk-promised", "kv_tokens"), ("sk-shared", "kv_tokens")}
    for count in (2, 5):
        several = await totals(tmp_path / str(count), url, count)
        assert (several.refused, several.tenants) == (one.refused, one.tenants)
        assert several.admitted_by_first < one.admitted_by_first  # the others have taken part
