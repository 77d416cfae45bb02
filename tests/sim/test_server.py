from __future__ import annotations

import asyncio
import re
import signal
import sys

import aiohttp
import pytest

from tests.sim.simulated import ASKS, Client, all_apis, simulated


async def test_metrics_have_vllms_names(sim: Client) -> None:
    await sim.post("/v1/completions", {"prompt": "the tenant", "max_tokens": 5})
    async with sim.session.get(f"{sim.url}/metrics") as response:
        text = await response.text()
    labels = 'engine="0",model_name="tiny"'
    for line in (
        f"vllm:num_requests_running{{{labels}}} 0.0",
        f"vllm:num_requests_waiting{{{labels}}} 0.0",
        f"vllm:kv_cache_usage_perc{{{labels}}} 0.0",
        f"vllm:prompt_tokens_total{{{labels}}} 2.0",
        f"vllm:generation_tokens_total{{{labels}}} 5.0",
        'vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 1.0',
        f"vllm:num_preemptions_total{{{labels}}} 0.0",
        f"vllm:time_to_first_token_seconds_count{{{labels}}} 1.0",
    ):
        assert line in text


async def test_health_and_version_answer(sim: Client) -> None:
    async with sim.session.get(f"{sim.url}/health") as response:
        assert response.status == 200
    assert await sim.get("/version") == {"version": "0.32.0"}


@all_apis
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_that_leaves_frees_its_slot_at_once(path: str, stream: bool) -> None:
    async with simulated("decode_ms=60000") as client:  # would take minutes
        asking = asyncio.create_task(client.post(path, {**ASKS[path], "stream": stream}))
        await client.totals_when(running=1)
        asking.cancel()
        totals = await client.totals_when(running=0)
        assert (totals["aborted"], totals["finished"], totals["kv_tokens"]) == (1, 0, 0)


async def test_a_full_server_lets_requests_wait_and_serves_them_all() -> None:
    async with simulated("speed=100&max_num_seqs=2") as client:
        body = {"prompt": "the tenant", "max_tokens": 20}
        asking = [asyncio.create_task(client.post("/v1/completions", body)) for _ in range(6)]
        await client.totals_when(running=2, waiting=4)
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 6
        assert await client.totals_when(running=0) == {
            "requests": 6,
            "finished": 6,
            "aborted": 0,
            "prompt_tokens": 12,
            "completion_tokens": 120,
            "running": 0,
            "waiting": 0,
            "kv_tokens": 0,
        }


async def test_an_answer_takes_its_time() -> None:
    async with simulated("decode_ms=10&prefill_ms_per_1k=100") as client:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await client.post("/v1/completions", {"prompt": [1] * 1000, "max_tokens": 11})
        assert loop.time() - started > 0.195  # 100 ms for the prompt, ten steps of 10 ms


@pytest.mark.parametrize("status", [500, 503])
async def test_a_fault_answers_its_status(faulty: Client, status: int) -> None:
    got, answer = await faulty.post("/v1/completions", ASKS["/v1/completions"], **{"x-sim-fault": str(status)})
    assert (got, answer["error"]["code"]) == (status, status)


async def test_a_fault_hangs_up_without_an_answer(faulty: Client) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await faulty.post("/v1/completions", ASKS["/v1/completions"], **{"x-sim-fault": "hangup"})


async def test_a_fault_cuts_a_stream_after_some_tokens(faulty: Client) -> None:
    body = {**ASKS["/v1/completions"], "stream": True}
    async with faulty.session.post(
        f"{faulty.url}/v1/completions", json=body, headers={"x-sim-fault": "cut:3"}
    ) as response:
        seen = [await response.content.readuntil(b"\n\n") for _ in range(3)]
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.readuntil(b"\n\n")
    assert all(event.startswith(b"data: ") for event in seen)
    assert (await faulty.get("/sim/totals"))["aborted"] == 1


async def test_a_fault_cuts_a_whole_answer(faulty: Client) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await faulty.post("/v1/completions", ASKS["/v1/completions"], **{"x-sim-fault": "cut:3"})


async def test_faults_are_off_by_default(sim: Client) -> None:
    status, _ = await sim.post("/v1/completions", ASKS["/v1/completions"], **{"x-sim-fault": "500"})
    assert status == 200
    async with sim.session.get(f"{sim.url}/sim/last") as response:
        assert response.status == 404


async def test_the_last_request_can_be_seen(faulty: Client) -> None:
    await faulty.post("/v1/completions", b'{"prompt":"the"}', **{"x-tenant": "acme"})
    last = await faulty.get("/sim/last")
    assert (last["path"], last["body"]) == ("/v1/completions", '{"prompt":"the"}')
    assert last["headers"]["x-tenant"] == "acme"


async def test_closing_cuts_what_is_being_answered() -> None:
    async with simulated("decode_ms=60000") as client:
        asking = asyncio.create_task(client.post("/v1/completions", ASKS["/v1/completions"]))
        await client.totals_when(running=1)
    with pytest.raises((aiohttp.ClientError, asyncio.CancelledError)):
        await asking


PROGRAM = """
import asyncio
from extproc.core.policy import Vector
from extproc.sim.options import options_from_url
from extproc.sim.server import run_until_signal
options = options_from_url("sim://", model="tiny", max_model_len=64, capacity=Vector(1, 64, 1))
asyncio.run(run_until_signal(options, "127.0.0.1", 0))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_says_when_it_is_ready_and_ends_with_a_signal(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert re.fullmatch(r"tokenpool sim is ready: http://127\.0\.0\.1:\d+\n", line)
    process.send_signal(number)
    rest, _ = await process.communicate()
    assert (process.returncode, rest) == (0, b"")
