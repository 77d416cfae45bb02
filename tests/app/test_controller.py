"""Controllers on a real server, with short ticks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import redis.asyncio

from extproc.controller import TERM_TICKS, Controller, next_due
from extproc.core.policy import Entitlement, Model, Policy, Pool, ServiceClass, Vector
from extproc.core.settings import Settings
from extproc.redis_ledger import RedisControl, connect
from tests.app.conftest import until
from tests.ledger.conftest import Silent

TICK_MS = 100
SERVER = Vector(1000, 100_000, 16)
MODEL = Model("m", (Pool("default", ("http://a:1",), 8192, SERVER),))
CROWDED, ONE, TWO = Vector(200_000, 10**8, 20_000), Vector(10, 1000, 1), Vector(20, 2000, 2)
FAR_MS = 9_000_000_000_000
BASE = Vector(100, 10_000, 2)
POLICY = Policy((MODEL,), (Entitlement("ada", "m", ServiceClass.ELASTIC, BASE, BASE),))
SETTINGS = Settings(POLICY, tick_ms=TICK_MS)


@dataclass
class Fixed:
    """Servers as a test says; `fault` is raised instead while it is set."""

    fault: Exception | None = None
    count: int = 1
    pools: int = 1

    def live(self, _model: str) -> tuple[int, ...]:
        if self.fault is not None:
            raise self.fault
        return (self.count,) * self.pools


@dataclass
class Running:
    """What controllers do on one server, as its keys tell."""

    client: redis.asyncio.Redis
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def start(self, holder: str, servers: Fixed | None = None, settings: Settings = SETTINGS) -> None:
        control = RedisControl(self.client, settings.policy, Silent())
        controller = Controller(settings, control, servers or Fixed(), holder)
        self.tasks[holder] = asyncio.create_task(controller.run())

    async def stop(self, holder: str) -> None:
        task = self.tasks.pop(holder)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def fill(self, name: str, records: dict[str, str]) -> None:
        """A whole hash of model m at once."""
        await self.client.execute_command(  # type: ignore[no-untyped-call]
            "HSET", f"tp3:{{m}}:{name}", *(part for pair in records.items() for part in pair)
        )

    async def leader(self, model: str = "m") -> str:
        return str(await self.client.hget(f"tp3:{{{model}}}:leader", "holder"))

    async def ticked_at(self, model: str = "m") -> int:
        """When the shares were set last, in ms; 0: never."""
        return int(await self.client.hget(f"tp3:{{{model}}}:shares", "tick at") or 0)

    async def until_ticked(self, times: int = 1, model: str = "m") -> None:
        for _ in range(times):
            before = await self.ticked_at(model)

            async def later(before: int = before) -> bool:
                return await self.ticked_at(model) > before

            await until(later, 10)


@pytest.fixture
async def running(url: str) -> AsyncIterator[Running]:
    client = connect(url)
    await client.flushall()
    found = Running(client)
    yield found
    for holder in list(found.tasks):
        await found.stop(holder)
    await client.aclose()


async def test_who_is_alone_leads_and_sets_shares_tick_after_tick(running: Running) -> None:
    running.start("one")
    await running.until_ticked(times=4)
    assert await running.leader() == "one"


async def test_ticks_keep_their_schedule(running: Running) -> None:
    running.start("one")
    await running.until_ticked()
    first = await running.ticked_at()
    await running.until_ticked(times=10)
    ticks = (await running.ticked_at() - first) / TICK_MS
    assert 9.5 < ticks < 15  # late on a busy machine, never early


async def test_the_servers_that_answer_are_what_the_shares_stand_for(running: Running) -> None:
    servers = Fixed(count=3)
    running.start("one", servers)
    await running.until_ticked()
    assert str(await running.client.hget("tp3:{m}:shares", "pool default")).startswith("3 ")


async def test_another_takes_over_within_three_ticks(running: Running) -> None:
    running.start("one")
    await running.until_ticked()
    running.start("two")
    await running.until_ticked(times=3)
    await running.stop("one")
    last = await running.ticked_at()

    async def taken_over() -> bool:
        return await running.leader() == "two"

    await until(taken_over, 10)
    await running.until_ticked()
    gap_ticks = (await running.ticked_at() - last) / TICK_MS
    assert gap_ticks < TERM_TICKS + 1 + 1  # and one for a busy machine


async def test_gain_and_loss_of_the_lead_are_logged(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "extproc.controller"):
        running.start("one")
        await running.until_ticked(times=2)
        await running.client.hset("tp3:{m}:leader", mapping={"holder": "thief", "term": 9**15})

        async def lost() -> bool:
            return "leads m no longer" in caplog.messages

        await until(lost, 10)
    assert caplog.messages[0].startswith("leads m, term ")


async def test_an_outage_is_logged_once_and_its_end_too(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "extproc.controller"):
        running.start("one")
        await running.until_ticked()
        caplog.clear()
        async with forbidden(running.client, "evalsha"):

            async def outage() -> bool:
                return bool(caplog.messages)

            await until(outage, 10)
            began = await running.ticked_at()
            refused = await refusals(running.client)

            async def asked_again() -> bool:
                return await refusals(running.client) >= refused + 3

            await until(asked_again, 10)
            assert await running.ticked_at() == began
        await running.until_ticked(times=2)
    trouble = [message for message in caplog.messages if not message.startswith("leads m")]
    assert len(trouble) == 2
    assert trouble[0].startswith("the shares of m stay as they are: ")
    assert trouble[1] == "the shares of m are set again"


async def test_a_tick_that_fails_ends_no_other(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    servers = Fixed(fault=ZeroDivisionError("a mistake of ours"))
    with caplog.at_level(logging.WARNING, "extproc.controller"):
        running.start("one", servers)

        async def told() -> bool:
            return len(caplog.messages) >= 2

        await until(told, 10)
        servers.fault = None
        await running.until_ticked()
    assert caplog.messages == ["a tick of m failed", "the shares of m stay as they are: the tick failed"]


async def test_a_model_that_fails_holds_up_no_other(running: Running) -> None:
    other = Model("n", MODEL.pools)
    entitlement = Entitlement("bob", "n", ServiceClass.ELASTIC, BASE, BASE)
    policy = Policy((MODEL, other), (*POLICY.entitlements, entitlement))

    await running.client.set("tp3:{n}:uses", "no hash")
    running.start("one", settings=Settings(policy, tick_ms=TICK_MS))
    await running.until_ticked(times=3)
    assert await running.ticked_at("n") == 0


async def test_a_tick_of_ten_thousand_entitlements_costs_a_few_times_what_it_takes_to_read_their_numbers(
    running: Running,
) -> None:
    """All active in both pools, each with a request that was refused. The best of several: others may be busy.

    It costs seven times as much as plain Python needs to read 13 numbers of each: 92 ms against 13.
    """
    pools = (Pool("short", ("http://a:1",), 8192, CROWDED), Pool("long", ("http://b:1",), 65_536, CROWDED))
    crowd = tuple(Entitlement(f"tenant-{n:05d}", "m", ServiceClass.ELASTIC, ONE, TWO) for n in range(10_000))
    policy = Policy((Model("m", pools),), crowd)
    control = RedisControl(running.client, policy, Silent())
    controller = Controller(Settings(policy), control, Fixed(count=1, pools=2), "one")
    spent, plain = [], []
    for round_ in range(1, 7):
        await running.fill(
            "uses", {f"{one.name} {pool.name}": f"{500 + round_} 1 0 0" for one in crowd for pool in pools}
        )
        await running.fill("unmet", {one.name: f"f{round_:015x}:{FAR_MS}:short:500:500" for one in crowd})
        asked, served = 900 * round_, 800 * round_
        record = f"12345 1000 2 1000 1 1000000 1000000 1795000000000 4000 1500 2 {asked} {served}"
        await running.fill("entitlements", {one.name: record for one in crowd})
        began = time.process_time()
        assert await controller.tick_once("m") is None
        spent.append(time.process_time() - began)
        began = time.process_time()
        assert sum(sum(map(int, record.split())) for _ in crowd) > 0
        plain.append(time.process_time() - began)
    assert min(spent) < 12 * min(plain)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        pytest.param(10.0, 11.0, id="at once"),
        pytest.param(10.4, 11.0, id="what a tick takes is not added"),
        pytest.param(11.0, 11.0, id="just in time"),
        pytest.param(20.3, 21.0, id="missed ticks are not made up"),
    ],
)
def test_the_next_tick_is_due(now: float, due: float) -> None:
    assert next_due(10.0, now, 1.0) == due


@contextlib.asynccontextmanager
async def forbidden(client: redis.asyncio.Redis, command: str) -> AsyncIterator[None]:
    """The server refuses a command."""
    await client.execute_command("ACL", "SETUSER", "default", f"-{command}")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        await client.execute_command("ACL", "SETUSER", "default", f"+{command}")  # type: ignore[no-untyped-call]


async def refusals(client: redis.asyncio.Redis) -> int:
    return int((await client.info("commandstats"))["cmdstat_evalsha"]["rejected_calls"])
