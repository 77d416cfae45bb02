"""A simulated server on a port the system chose, and a client of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from extproc.core.policy import Vector
from extproc.sim.options import options_from_url
from extproc.sim.server import serve

Json = dict[str, Any]

HELLO = [{"role": "user", "content": "the tenant"}]
HELLO_TOKENS = 2 + 4 + 3  # words, one message, the answer's opening
MAX_MODEL_LEN = 2048
ASKS = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 5},
    "/v1/completions": {"prompt": "the tenant", "max_tokens": 5},
    "/v1/responses": {"input": "the tenant", "max_output_tokens": 5},
    "/v1/messages": {"messages": HELLO, "max_tokens": 5},
}
all_apis = pytest.mark.parametrize("path", ASKS)


class Client:
    """One server and a client of it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def post(self, path: str, body: Json | bytes, **headers: str) -> tuple[int, Json]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> Any:
        async with self.session.get(self.url + path) as response:
            assert response.status == 200
            return await response.json()

    async def stream(self, path: str, body: Json, **headers: str) -> list[str]:
        """The data of each event."""
        async with self.session.post(self.url + path, json={**body, "stream": True}, headers=headers) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            text = await response.text()
        return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]

    async def totals_when(self, **expected: int) -> Json:
        """The totals once they hold what is expected; the test's timeout is the limit."""
        while True:
            totals: Json = await self.get("/sim/totals")
            if expected.items() <= totals.items():
                return totals


@contextlib.asynccontextmanager
async def simulated(query: str = "speed=1000") -> AsyncIterator[Client]:
    options = options_from_url(
        f"sim://?{query}",
        model="tiny",
        max_model_len=MAX_MODEL_LEN,
        capacity=Vector(1000, 20_000, 8),
        aliases=("small",),
    )
    handle = await serve(options, "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(session, f"http://127.0.0.1:{handle.port}")
    finally:
        await handle.close()
