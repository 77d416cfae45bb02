"""Adaptive batching: one call in flight, and the next carries all who came meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_IN_A_CALL = 256  # bounds how long one script may hold Redis: about 3 ms


class Batching(Generic[Item, Answer]):
    """Joins concurrent submissions into calls; a call answers each of its items, in order, or fails them all.

    `abandoned` is told of an answer whose submitter was cancelled while the call was in flight, `lost` of such an item
    where the call failed: the far side may have done it all the same.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        abandoned: Callable[[Item, Answer], None] | None = None,
        lost: Callable[[Item], None] | None = None,
    ) -> None:
        self._call = call
        self._abandoned = abandoned
        self._lost = lost
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """Raises what the call raised."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        try:
            return await future
        except asyncio.CancelledError:
            self._untaken(item, future)
            raise

    async def close(self) -> None:
        """Ends the call in flight; whoever waits for it is cancelled."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _untaken(self, item: Item, future: asyncio.Future[Answer]) -> None:
        """A submitter can be cancelled after its answer was set and before it runs again to take it."""
        if self._abandoned is not None and not future.cancelled() and future.exception() is None:
            self._abandoned(item, future.result())

    async def _run(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), MOST_IN_A_CALL)
                batch = [self._waiting.popleft() for _ in range(count)]
                await self._answer([entry for entry in batch if not entry[1].cancelled()])
        finally:
            self._running = None

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        if not batch:
            return
        try:
            answers = await self._call([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in (*batch, *self._waiting):
                future.cancel()
            raise
        except Exception as fault:  # noqa: BLE001 - whatever it is, each submitter gets it
            self._fail(batch, fault)
        else:
            self._deliver(batch, answers)

    def _fail(self, batch: list[tuple[Item, asyncio.Future[Answer]]], fault: Exception) -> None:
        """So do those who waited behind the call: they have waited long enough to know."""
        behind = [self._waiting.popleft() for _ in range(len(self._waiting))]
        for _, future in (*batch, *behind):
            if not future.cancelled():
                future.set_exception(fault)
        for item, future in batch:
            if future.cancelled() and self._lost is not None:
                self._lost(item)

    def _deliver(self, batch: list[tuple[Item, asyncio.Future[Answer]]], answers: Sequence[Answer]) -> None:
        for (item, future), answer in zip(batch, answers, strict=True):
            if not future.cancelled():
                future.set_result(answer)
            elif self._abandoned is not None:
                self._abandoned(item, answer)
