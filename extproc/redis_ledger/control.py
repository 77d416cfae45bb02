"""What the controller reads of the shared state and writes to it, over Redis or Valkey 7+."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import redis.asyncio

from extproc.core.observed import Observer
from extproc.core.policy import Policy
from extproc.core.seen import Seen, Shares
from extproc.redis_ledger import columns
from extproc.redis_ledger.calls import KEY_LIFETIME_MS, Calls, keys
from extproc.redis_ledger.columns import Layout, Texts

_OPERATIONS = ("lead", "shares")
_READ = ("entitlements", "uses", "unmet", "waiters", "shares")  # in the order of Texts


class RedisControl:
    """Implements `ledger.Stewardship`. `now_ms` is for tests: without it the server's clock is used."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        policy: Policy,
        observer: Observer,
        *,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._client = client
        self._now_ms = now_ms
        self._calls = Calls(client, observer, _OPERATIONS, now_ms)
        self._layouts = {model.name: Layout(model, policy) for model in policy.models}
        self._before: dict[str, Mapping[str, str]] = {}  # by model: the shares as last seen

    async def lead(self, model: str, holder: str, term_ms: int) -> int:
        arguments = [self._calls.now(), holder, term_ms, KEY_LIFETIME_MS]
        return int(await self._calls.run("lead", keys(model, "leader"), arguments))

    async def seen(self, model: str, live: tuple[int, ...]) -> Seen:
        pipeline = self._client.pipeline(transaction=True)
        for key in keys(model, *_READ):
            pipeline.hgetall(key)
        pipeline.time()
        *hashes, (seconds, microseconds) = await self._calls.timed("seen", 1, pipeline.execute)
        texts = Texts(*hashes)
        self._before[model] = texts.shares
        at_ms = seconds * 1000 + microseconds // 1000 if self._now_ms is None else self._now_ms()
        return self._layouts[model].seen(texts, at_ms, live)

    async def set_shares(self, model: str, term: int, shares: Shares) -> bool:
        """Writes what differs from the shares as they were seen: while the term lasts nobody else changes them."""
        before, now = self._before.pop(model, {}), self._layouts[model].texts(shares)
        gone = "".join(f"{field}\n" for field in before if field not in now)
        new = "".join(f"{field}\t{record}\n" for field, record in now.items() if before.get(field) != record)
        arguments = [self._calls.now(), term, KEY_LIFETIME_MS, gone, new]
        return bool(await self._calls.run("shares", keys(model, "leader", "shares"), arguments))

    async def desired(self, model: str) -> dict[str, int]:
        pools = self._layouts[model].pools
        fields = [columns.POOL + pool for pool in pools]
        [key] = keys(model, "shares")

        async def read() -> list[Any]:
            return list(await self._client.hmget(key, fields))

        records = await self._calls.timed("desired", 1, read)
        return {pool: columns.desired(record) for pool, record in zip(pools, records, strict=True) if record}
