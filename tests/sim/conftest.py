from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.sim.simulated import Client, simulated


@pytest_asyncio.fixture
async def sim() -> AsyncIterator[Client]:
    async with simulated() as client:
        yield client


@pytest_asyncio.fixture
async def faulty() -> AsyncIterator[Client]:
    async with simulated("speed=1000&faults=true") as client:
        yield client
