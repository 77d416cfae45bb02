"""What clients see when parts are gone, and that Envoy follows its files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from extproc.core.policy import FailMode, Model, Policy, Pool, Vector
from extproc.core.settings import Identity, Settings
from extproc.envoy_config import Deployment, dump, static_config, write_xds
from tests.envoy.conftest import deployment_of, two_pools
from tests.envoy.fakes import PATIENCE_SECONDS, ModelServer, Seen, Sidecar
from tests.envoy.running import Envoy, running

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Fleet:
    envoy: Envoy
    seen: Seen
    sidecars: list[Sidecar]
    short: ModelServer
    long: ModelServer
    settings: Settings
    deployment: Deployment


@asynccontextmanager
async def fleet(directory: Path, *, sidecars: int = 1, xds: bool = False, **changed: Any) -> AsyncIterator[Fleet]:
    seen = Seen()
    async with AsyncExitStack() as life:
        all_sidecars = [await life.enter_async_context(Sidecar(seen, number)) for number in range(sidecars)]
        short = await life.enter_async_context(ModelServer())
        long = await life.enter_async_context(ModelServer())
        settings = replace(Settings(two_pools(short.url, long.url)), **changed)
        deployment = deployment_of(all_sidecars)
        if xds:
            file = write_xds(settings, deployment, directory)
        else:
            file = directory / "envoy.yaml"
            file.write_text(dump(static_config(settings, deployment)))
        envoy = await life.enter_async_context(running(file, deployment.port, deployment.admin_port))
        yield Fleet(envoy, seen, all_sidecars, short, long, settings, deployment)


async def post(envoy: Envoy, body: object, path: str = CHAT, **headers: str) -> tuple[int, str | None]:
    async with envoy.client.post(envoy.url + path, json=body, headers=headers) as reply:
        await reply.read()
        return reply.status, reply.headers.get("x-tokenpool-reason")


async def test_a_dead_sidecar_of_two_is_invisible(tmp_path: Path) -> None:
    async with fleet(tmp_path, sidecars=2) as one:
        await one.sidecars[0].stop()
        answers = [await post(one.envoy, {}) for _ in range(20)]
        assert answers == [(200, None)] * 20
        assert set(one.seen.peers) == {1}


async def test_a_dead_sidecar_does_not_touch_an_answer_under_way(tmp_path: Path) -> None:
    async with (
        fleet(tmp_path) as one,
        one.envoy.client.post(one.envoy.url + CHAT, json={"pause": True, "content_type": "text/event-stream"}) as reply,
    ):
        await one.sidecars[0].stop()
        one.short.go_on.set()
        assert (reply.status, await reply.read()) == (200, b"first, last")


async def test_without_any_sidecar_requests_are_refused(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one:
        await one.sidecars[0].stop()
        async with one.envoy.client.post(one.envoy.url + "/v1/messages", json={}) as reply:
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert (await reply.json())["error"]["type"] == "overloaded_error"
        assert one.short.requests == one.long.requests == []


async def test_fail_open_sends_everything_to_the_long_pool(tmp_path: Path) -> None:
    async with fleet(tmp_path, fail=FailMode.OPEN) as one:
        assert await post(one.envoy, {}) == (200, None)
        await one.sidecars[0].stop()
        assert await post(one.envoy, {}, authorization="Bearer k") == (200, None)
        assert (len(one.short.requests), len(one.long.requests)) == (1, 1)
        assert "authorization" not in one.long.requests[0][1]
        assert (await post(one.envoy, {}, "/v1/other"))[0] == 404


async def test_fail_open_still_lets_no_request_without_a_body_through(tmp_path: Path) -> None:
    async with fleet(tmp_path, fail=FailMode.OPEN) as one:
        async with one.envoy.client.post(one.envoy.url + CHAT) as reply:
            assert reply.status == 400
        assert await raw_exchange(one.envoy, b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\r\n") == 400
        assert one.short.requests == one.long.requests == []


async def raw_exchange(envoy: Envoy, request: bytes) -> int:
    """The status of the answer to some bytes: of requests that no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", envoy.port)
    writer.write(request)
    status = int((await reader.readline()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


async def test_fail_open_with_several_models_cannot_guess(tmp_path: Path) -> None:
    capacity = Vector(1000, 100_000, 16)
    models = tuple(Model(name, (Pool("default", ("http://127.0.0.1:9",), 8192, capacity),)) for name in "ab")
    async with fleet(tmp_path, fail=FailMode.OPEN, policy=Policy(models, ())) as one:
        await one.sidecars[0].stop()
        assert (await post(one.envoy, {}))[0] == 503


async def test_a_dead_short_pool_fails_over_to_the_long_one(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one:
        await one.short.stop()
        assert [await post(one.envoy, {}) for _ in range(5)] == [(200, None)] * 5
        assert len(one.long.requests) == 5


async def test_a_model_without_servers_is_a_503(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one:
        await one.long.stop()
        status, reason = await post(one.envoy, {"verdict": {"route": "m/long"}})
        assert (status, reason) == (503, "no_servers")


async def test_an_identity_header_is_not_taken_from_a_client(tmp_path: Path) -> None:
    async with fleet(tmp_path, identity=Identity(header="x-tenant")) as one:
        await post(one.envoy, {}, **{"x-tenant": "rich"})
        assert "rich" not in str(one.seen.messages[-1])


async def test_an_identity_header_of_a_trusted_peer_reaches_the_sidecar_only(tmp_path: Path) -> None:
    async with fleet(tmp_path, identity=Identity(header="x-tenant"), xds=True) as one:
        write_xds(one.settings, replace(one.deployment, peer_sets_identity=True), tmp_path)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "rich" not in str(one.seen.messages[-1:]):
                await post(one.envoy, {}, **{"x-tenant": "rich"})
        assert "rich" not in str(one.short.requests)


async def test_a_rewritten_directory_adds_a_pool_to_a_running_envoy(tmp_path: Path) -> None:
    async with fleet(tmp_path, xds=True) as one:
        new_pool = {"verdict": {"route": "new/default", "pool": "default"}}
        assert await post(one.envoy, new_pool) == (503, "no_servers")
        async with one.envoy.client.post(
            one.envoy.url + CHAT, json={"pause": True, "content_type": "text/event-stream"}
        ) as under_way:
            model = Model("new", (Pool("default", (one.long.url,), 8192, Vector(1000, 100_000, 16)),))
            policy = replace(one.settings.policy, models=(*one.settings.policy.models, model))
            write_xds(replace(one.settings, policy=policy), one.deployment, tmp_path)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await post(one.envoy, new_pool) != (200, None):
                    pass  # Envoy does not say when it has read a file
            one.short.go_on.set()
            assert await under_way.read() == b"first, last"
        assert len(one.long.requests) == 1


async def test_http2_without_tls_is_spoken_too(tmp_path: Path) -> None:
    async with fleet(tmp_path) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.envoy.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))  # preface, empty SETTINGS
        header = await reader.readexactly(9)
        assert header[3] == 4  # a SETTINGS frame
        writer.close()
        await writer.wait_closed()


async def test_a_retry_of_the_message_is_judged_once(tmp_path: Path) -> None:
    async with fleet(tmp_path, sidecars=2) as one:
        await asyncio.gather(*(post(one.envoy, {"n": number}) for number in range(20)))
        bodies = [json.loads(message.request_body.body)["n"] for message in one.seen.messages]
        assert sorted(bodies) == list(range(20))
