from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from extproc.redis_ledger import connect
from tests.edge.sidecars import Caller, Sidecar, sidecar


@pytest.fixture
async def empty_url(redis_url: str) -> str:
    """A real server without any keys."""
    client = connect(redis_url)
    await client.flushall()
    await client.aclose()
    return redis_url


@pytest.fixture
async def running(empty_url: str, tmp_path: Path) -> AsyncIterator[Sidecar]:
    async with sidecar(empty_url, tmp_path) as found:
        yield found


@pytest.fixture
async def envoy(running: Sidecar) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(running.address) as channel:
        yield Caller(channel)
