"""`tokenpool up --request-log`: what clients asked through Envoy is read back as a trace."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from extproc.request_log import Line
from extproc.traces.reading import read
from tests.e2e.conftest import CONFIG
from tests.e2e.stack import running, until

pytestmark = pytest.mark.e2e

MESSAGES = [{"role": "user", "content": "Some words that a model would read."}]
ANSWERS = [3, 5, 8, 13, 21]


async def usage(http: aiohttp.ClientSession, tokens: int, *, stream: bool) -> tuple[int, int]:
    """What the server told the client of this request."""
    body: dict[str, Any] = {"model": "alias", "messages": MESSAGES, "max_tokens": tokens, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    async with http.post("chat/completions", json=body) as answer:
        text = await answer.text()
        assert answer.status == 200, text
    last = [line.removeprefix("data: ") for line in text.splitlines() if '"usage"' in line][-1] if stream else text
    told = json.loads(last)["usage"]
    return told["prompt_tokens"], told["completion_tokens"]


async def test_requests_are_logged_with_the_lengths_that_clients_were_told(tmp_path: Path) -> None:
    log, moved = tmp_path / "requests.jsonl", tmp_path / "requests.jsonl.1"

    async def logged(path: Path, lines: int) -> None:
        await until(lambda: path.exists() and len(path.read_text().splitlines()) == lines)

    with running(CONFIG, tmp_path, 2, "--request-log", str(log)) as stack:
        headers = {"authorization": "Bearer sk-wide"}
        async with aiohttp.ClientSession(stack.base_url + "/", headers=headers) as http:
            asked = [usage(http, tokens, stream=stream) for tokens in ANSWERS for stream in (False, True)]
            told = await asyncio.gather(*asked)
            await logged(log, len(told))
            log.rename(moved)
            told.append(await usage(http, 34, stream=False))
            await logged(log, 1)
        assert stack.metric("tokenpool_request_log_lost_total") == 0
    trace = read([moved, log])
    lengths = zip(trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
    assert sorted(lengths) == sorted(told)
    assert (trace.clients, trace.left_out, trace.output_tokens[-1]) == (("wide",), 0, 34)
    for line in map(json.loads, moved.read_text().splitlines()):
        assert tuple(line) == Line.__struct_fields__
        assert (line["model"], line["pool"], line["status"], line["source"]) == ("m", "short", 200, "usage")
        assert 0 < line["ttft_ms"] <= line["duration_ms"]
        assert line["prompt_estimate"] > 0 < line["reserved_tokens"]
    assert "sk-wide" not in moved.read_text()
    assert "Some words" not in moved.read_text()
