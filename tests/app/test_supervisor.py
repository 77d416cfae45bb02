from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import grpc.aio
import pytest

from extproc import scaler
from extproc.pb import externalscaler_pb2 as pb
from tests.app.conftest import Serve, runs, started, until
from tests.edge.envoys import body_message, verdict_of
from tests.edge.sidecars import Caller

STOP_SECONDS = 15.0


@pytest.fixture
async def serve(url: str, tmp_path: Path) -> AsyncIterator[Serve]:
    """Two workers, ready."""
    async with started(tmp_path, "--redis", url) as found:
        await until(found.is_ready)
        yield found


async def admit(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        assert verdict_of(await Caller(channel).ask(body_message()))["verdict"] == "admit"


async def test_it_is_ready_when_every_worker_gives_verdicts(serve: Serve) -> None:
    assert len(serve.workers()) == 2
    for address in serve.addresses:
        await admit(address)
    assert await serve.admitted() == 2


async def test_a_killed_worker_is_replaced_reported_meanwhile_and_still_counted(serve: Serve) -> None:
    for address in serve.addresses:
        await admit(address)
    first, second = serve.workers()
    os.kill(first, signal.SIGKILL)

    async def reported() -> bool:
        status, text = await serve.readyz()
        return status == 503 and "worker on unix:" in text

    await until(reported)
    assert await serve.admitted() == 2
    await until(serve.is_ready)
    assert second in serve.workers()
    assert len(serve.workers()) == 2
    for address in serve.addresses:
        await admit(address)
    assert await serve.admitted() == 4


async def test_every_worker_tells_keda_how_many_servers_there_should_be(serve: Serve) -> None:
    ref = pb.ScaledObjectRef(name="vllm", namespace="default", scalerMetadata={"model": "llama"})
    for address in serve.addresses:
        async with grpc.aio.insecure_channel(address) as channel:
            get = channel.unary_unary(
                f"/{scaler.SERVICE}/GetMetrics",
                pb.GetMetricsRequest.SerializeToString,
                pb.GetMetricsResponse.FromString,
            )

            async def told(get=get) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001
                try:
                    answer = await get(pb.GetMetricsRequest(scaledObjectRef=ref, metricName=scaler.METRIC))
                except grpc.aio.AioRpcError as fault:
                    if fault.code() is grpc.StatusCode.UNAVAILABLE:  # before the first tick
                        return False
                    raise
                return [value.metricValue for value in answer.metricValues] == [1]

            await until(told)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_everything_within_seconds(serve: Serve, number: signal.Signals) -> None:
    workers = serve.workers()
    serve.process.send_signal(number)
    async with asyncio.timeout(STOP_SECONDS):
        assert await serve.process.wait() == 0
    assert not any(map(runs, workers))
    assert "Traceback" not in serve.stderr.read_text()


async def test_a_signal_while_it_starts_leaves_no_process_behind(url: str, tmp_path: Path) -> None:
    async with started(tmp_path, "--redis", url) as serve:

        async def both_begun() -> bool:
            return len(serve.workers()) == 2

        await until(both_begun)
        workers = serve.workers()
        serve.process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            assert await serve.process.wait() == 0
        assert not any(map(runs, workers))


async def test_workers_do_not_outlive_a_supervisor_that_is_killed(serve: Serve) -> None:
    workers = serve.workers()
    serve.process.kill()
    await serve.process.wait()

    async def gone() -> bool:
        return not any(map(runs, workers))

    await until(gone, STOP_SECONDS)


async def test_without_redis_it_ends_with_one_line_that_says_so(tmp_path: Path) -> None:
    async with started(tmp_path, "--redis", f"unix://{tmp_path / 'nobody.sock'}") as serve:
        async with asyncio.timeout(START_SECONDS_WITHOUT_WORKERS):
            assert await serve.process.wait() == 1
    [line] = serve.stderr.read_text().splitlines()
    assert line.startswith("tokenpool: no Redis answers at unix://")
    assert "--redis" in line


START_SECONDS_WITHOUT_WORKERS = 20.0


async def test_the_password_of_redis_is_not_shown(tmp_path: Path) -> None:
    async with started(tmp_path, "--redis", "redis://user:hidden@127.0.0.1:1/0") as serve:
        async with asyncio.timeout(START_SECONDS_WITHOUT_WORKERS):
            assert await serve.process.wait() == 1
    assert "user:***@127.0.0.1:1" in serve.stderr.read_text()
    assert "hidden" not in serve.stderr.read_text()


async def test_a_port_that_is_taken_is_named(url: str, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        async with started(tmp_path, "--redis", url, listen=(address,)) as serve:
            async with asyncio.timeout(START_SECONDS_WITHOUT_WORKERS):
                assert await serve.process.wait() == 1
    [line] = serve.stderr.read_text().splitlines()
    assert address.rpartition(":")[2] in line
    assert "--listen" in line


async def test_a_socket_that_another_process_serves_is_named_and_left_alone(serve: Serve, url: str) -> None:
    taken = serve.addresses[0]
    folder = serve.stderr.parent / "second"
    folder.mkdir()
    async with (
        started(folder, "--redis", url, listen=(taken,)) as second,
        asyncio.timeout(START_SECONDS_WITHOUT_WORKERS),
    ):
        assert await second.process.wait() == 1
    [line] = second.stderr.read_text().splitlines()
    assert taken in line
    assert "--listen" in line
    await admit(taken)


async def test_a_socket_file_that_nobody_serves_is_taken_over(url: str, tmp_path: Path) -> None:
    left = tmp_path / "w0.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    async with started(tmp_path, "--redis", url, workers=1) as serve:
        await until(serve.is_ready)
        await admit(serve.addresses[0])
