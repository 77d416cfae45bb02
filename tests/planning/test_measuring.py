from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from extproc.core.policy import Vector
from extproc.planning.measuring import DECODE_TOKENS, MeasuringError, kv_tokens_in, measure, together_ms
from extproc.sim.options import options_from_url
from extproc.sim.server import serve
from extproc.sim.timing import Timing

SECONDS = 20.0


@contextlib.asynccontextmanager
async def simulated(query: str, max_model_len: int = 2048) -> AsyncIterator[str]:
    options = options_from_url(
        f"sim://?{query}", model="tiny", max_model_len=max_model_len, capacity=Vector(1000, 100_000, 8)
    )
    handle = await serve(options, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{handle.port}"
    finally:
        await handle.close()


@contextlib.asynccontextmanager
async def answering(path: str, body: Any, status: int = 200) -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get(path, answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_simulated_servers_times_are_found() -> None:
    told: list[str] = []
    async with simulated("speed=5") as url:
        found = await measure(f"{url}/v1", SECONDS, None, told.append)
    assert (found.model, found.max_model_len) == ("tiny", 2048)
    real = Timing()
    for tokens, ms in found.timing.prefill.points[2:]:
        assert 5 * ms == pytest.approx(real.prefill.at(tokens), rel=0.3)
    for sequences, ms in found.timing.decode.points:
        assert 5 * ms == pytest.approx(real.decode.at(sequences), rel=0.3)
    assert [x for x, _ in found.timing.decode.points] == [1, 2, 4, 8]
    assert found.timing.prefill.points[-1][0] == 2047
    assert "reading 2,047 tokens" in told


async def test_the_most_sequences_are_those_that_ran_together() -> None:
    async with simulated("speed=20&max_num_seqs=4") as url:
        found = await measure(url, SECONDS, None)
    assert found.sequences == 4


async def test_when_time_is_up_it_ends_with_what_it_has() -> None:
    async with simulated("speed=20") as url:
        found = await measure(url, 1e-3, None)
    assert len(found.timing.prefill.points) == len(found.timing.decode.points) == 1


async def test_a_server_of_another_kind_is_named() -> None:
    async with answering("/v1/models", {"data": [{"id": "m"}]}) as url:
        with pytest.raises(MeasuringError, match=f"{url}/v1/models names no model with its max_model_len"):
            await measure(url, SECONDS, None)


async def test_a_refusal_is_shown() -> None:
    async with answering("/v1/models", {"error": "Unauthorized"}, 401) as url:
        with pytest.raises(MeasuringError, match=r'answers 401: \{"error": "Unauthorized"\}'):
            await measure(url, SECONDS, None)


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(MeasuringError, match=r"http://127\.0\.0\.1:9: Cannot connect"):
        await measure("http://127.0.0.1:9", SECONDS, None)


def test_streams_are_timed_while_all_run() -> None:
    steady = [0.1 * n for n in range(DECODE_TOKENS)]
    late = [1.0 + 0.1 * n for n in range(DECODE_TOKENS)]
    assert together_ms([steady, late]) == pytest.approx(100)


def test_streams_that_ran_one_after_another_have_no_common_step() -> None:
    assert together_ms([[0.0, 0.1, 0.2], [5.0, 5.1, 5.2]]) is None
    assert together_ms([[0.0, 0.1], []]) is None


def test_the_kv_cache_is_what_vllms_metrics_say() -> None:
    labels = 'block_size="16",cache_dtype="auto",hash_block_size="32",num_gpu_blocks="100",num_gpu_blocks_override="7"'
    assert kv_tokens_in(f"# HELP\nvllm:cache_config_info{{{labels}}} 1.0\n") == 1600
    assert kv_tokens_in("vllm:num_requests_running 0.0\n") is None


@pytest.mark.vllm
async def test_a_real_vllm_is_measured() -> None:
    url = os.environ.get("TOKENPOOL_VLLM_URL")
    if url is None:
        pytest.skip("TOKENPOOL_VLLM_URL names no server")
    found = await measure(url, SECONDS, None)
    assert found.kv_tokens is not None
    assert found.kv_tokens >= found.max_model_len
    assert found.sequences >= 1
    assert found.timing.prefill.points[-1][1] > 0
