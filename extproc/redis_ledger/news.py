"""What other processes tell this one through the server: a waiting request was granted, a borrowed lease taken back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator

import redis.asyncio
from redis.exceptions import RedisError

from extproc.ledger import Admitted, Refused

RECONNECT_SECONDS = 0.2
PING_SECONDS = 1.0
MOST_SILENT_PINGS = 3  # then the connection is dead, whatever it says
CANCEL_SECONDS = 0.1

log = logging.getLogger(__name__)

Answer = Admitted | Refused


class News:
    """One subscription, begun when it is first needed.

    `catch_up` is called after each later one, since what was published meanwhile is lost.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        decoded: Callable[[str, list[int]], Answer | None],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        """`decoded` makes an answer to a lease of its numbers."""
        self.channel = f"tp3:news:{secrets.token_hex(8)}"
        self.waiting: dict[str, asyncio.Future[Answer]] = {}  # by lease
        self.borrowed: dict[str, asyncio.Future[None]] = {}  # by lease
        self._client = client
        self._decoded = decoded
        self._catch_up = catch_up
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def ready(self, seconds: float) -> bool:
        """Whether what is published from now on will be heard."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen_forever())
        if not self._listening.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._listening.wait(), seconds)
        return self._listening.is_set()

    @contextlib.contextmanager
    def awaiting(self, lease: str) -> Iterator[asyncio.Future[Answer]]:
        """Enter before the request is sent: the grant may be published before its answer is read."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting[lease] = future
        try:
            yield future
        finally:
            if self.waiting.get(lease) is future:  # else the same lease was asked for here a second time
                del self.waiting[lease]

    def watch(self, lease: str) -> asyncio.Future[None]:
        """Done when the lease is taken back. Notices count from the first call on, until `forget`."""
        if lease not in self.borrowed:
            self.borrowed[lease] = asyncio.get_running_loop().create_future()
        return self.borrowed[lease]

    def forget(self, lease: str) -> None:
        self.borrowed.pop(lease, None)

    def taken(self, lease: str) -> None:
        future = self.borrowed.get(lease)
        if future is not None and not future.done():
            future.set_result(None)

    async def close(self) -> None:
        """Cancels until it is heard: the client writes in `asyncio.wait_for`, which before Python 3.12 may lose one."""
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=CANCEL_SECONDS)

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as fault:
                log.debug("no news: %s", fault)
            self._listening.clear()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self) -> None:
        missed = bool(self.waiting or self.borrowed)
        async with self._client.pubsub() as subscription:
            await subscription.subscribe(self.channel)
            silent = 0
            while silent <= MOST_SILENT_PINGS:
                message = await subscription.get_message(timeout=PING_SECONDS)
                silent = silent + 1 if message is None else 0
                if message is None:
                    await subscription.ping()
                elif message["type"] == "subscribe":
                    self._listening.set()
                    if missed:
                        await self._catch_up()
                elif message["type"] == "message":
                    self._heard(message["data"])

    def _heard(self, text: str) -> None:
        kind, lease, *values = text.split(" ")
        if kind == "taken":
            self.taken(lease)
            return
        future, answer = self.waiting.get(lease), self._decoded(lease, [int(value) for value in values])
        if future is not None and not future.done() and answer is not None:
            future.set_result(answer)
