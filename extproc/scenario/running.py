"""One run: a stack of its own, started, loaded, watched and stopped."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from extproc.local.processes import Children
from extproc.local.stack import run_directory, stop_signals
from extproc.scenario.client import Clock, OpenLoop
from extproc.scenario.configuration import TICK_SECONDS, Terms
from extproc.scenario.loads import Load, schedule
from extproc.scenario.outcomes import Outcome
from extproc.scenario.stack import Reach, Servers, up
from extproc.scenario.watching import ANSWER_SECONDS, Sample, Watch

PROGRESS_SECONDS = 0.2
WARM_UP_REQUESTS = 5  # of each tenant

Progress = Callable[[float], None]  # is told the scenario seconds that have passed


class Interrupted(Exception):  # noqa: N818 - it names the state of affairs
    """Raised where a run was asked to stop; everything it started is stopped by then. End."""


@dataclass(frozen=True, slots=True)
class Outage:
    """One server is killed, and started again."""

    server: int
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One run; times in scenario seconds."""

    name: str
    terms: Terms
    loads: tuple[Load, ...]
    seconds: float  # for which load comes
    grace_seconds: float  # then, for answers
    outage: Outage | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How a plan is run."""

    speed: float
    seed: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Record:
    """What was seen in one run."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    samples: tuple[Sample, ...]
    client_tokens: Counter[tuple[str, int]]  # that clients got, by tenant and second
    server_tokens: int  # that the servers generated while load came

    def of(self, tenant: str) -> tuple[Outcome, ...]:
        return tuple(one for one in self.outcomes if one.tenant == tenant)


async def run(plan: Plan, manner: Manner) -> Record:
    """Raises StackError where the stack cannot start or dies, Interrupted where it was asked to stop."""
    with run_directory() as folder:
        async with Children(folder) as machines, Children(folder) as children:

            async def whole() -> Record:
                servers = Servers(machines, plan.terms, manner.speed)
                await servers.start()
                reach = await up(children, folder, plan.terms, servers, manner.speed)
                return await measured(plan, manner, reach, servers)

            with stop_signals(children):
                record = await children.while_alive(whole())
    if record is None:
        raise Interrupted
    return record


async def measured(plan: Plan, manner: Manner, reach: Reach, servers: Servers) -> Record:
    keys = {tenant.name: tenant.key for tenant in plan.terms.tenants}
    over = plan.seconds + plan.grace_seconds
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as session:
        await OpenLoop(reach.base_url, keys, Clock.started(manner.speed)).warm_up(WARM_UP_REQUESTS)
        clock = Clock.started(manner.speed)
        watch, client = Watch(session, reach, servers, clock), OpenLoop(reach.base_url, keys, clock)
        beside = [asyncio.create_task(work) for work in (watch.follow(TICK_SECONDS), tell(clock, manner.progress))]
        try:
            _, _, server_tokens = await asyncio.gather(
                client.drive(schedule(plan.loads, manner.seed), over),
                strike(plan.outage, servers, clock),
                generated(plan.seconds, watch, clock),
            )
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
    servers.require_alive()
    return Record(plan, tuple(client.outcomes), tuple(watch.samples), client.tokens, server_tokens)


async def tell(clock: Clock, progress: Progress) -> None:
    while True:
        progress(clock.now)
        await asyncio.sleep(PROGRESS_SECONDS)


async def strike(outage: Outage | None, servers: Servers, clock: Clock) -> None:
    if outage is None:
        return
    await clock.until(outage.begins)
    servers.kill(outage.server)
    await clock.until(outage.ends)
    await servers.restart(outage.server)


async def generated(until: float, watch: Watch, clock: Clock) -> int:
    """What the servers had generated at that time."""
    await clock.until(until)
    await watch.look()
    return watch.samples[-1].server_tokens if watch.samples else 0
