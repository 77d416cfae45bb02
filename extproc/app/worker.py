"""One worker process: its ledger connection, its gRPC address, and its share of the sweep."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import stat
import sys
import time
from functools import partial

import uvloop

from extproc import scaler
from extproc.app import handover, logs
from extproc.app.faults import SidecarError
from extproc.app.options import WorkerOptions
from extproc.beliefs import LearnedBeliefs
from extproc.core.settings import Settings
from extproc.ledger import LedgerUnavailable
from extproc.redis_ledger import RedisControl, RedisLedger, connect
from extproc.request_log import logged
from extproc.server import Edge
from extproc.settlements import Settlements
from extproc.telemetry import Telemetry, shut_down, tracer_provider
from extproc.verdicts import Verdicts

SWEEP_SECONDS = 1.0
NOTICE_SECONDS = 1.0  # from "not serving" until Envoy's health checks have seen it (every 0.5 s)
GRACE_SECONDS = 10.0
TRACE_FLUSH_SECONDS = 2.0

log = logging.getLogger(__name__)


def run_worker(options: WorkerOptions) -> None:
    """Runs until SIGTERM. Raises SidecarError where the address is taken."""
    logs.set_up(as_json=options.json_logs)
    uvloop.run(_worker(options))


async def _worker(options: WorkerOptions) -> None:
    settings = handover.read(options.settings)
    provider = tracer_provider(os.environ)
    telemetry = Telemetry(tracer=provider.get_tracer("tokenpool") if provider else None)
    client = connect(redis_url(settings, options.redis))
    ledger = RedisLedger(
        client,
        settings.policy,
        telemetry,
        lease_ms=settings.lease_seconds * 1000,
        timeout_ms=settings.redis_timeout_ms,
        tick_ms=settings.tick_ms,
    )
    beliefs = LearnedBeliefs(ledger)
    steward = RedisControl(client, settings.policy, telemetry)
    scaling = partial(scaler.handler, settings.policy.models, steward)
    try:
        with logged(telemetry, options.request_log, telemetry.log_lost) as observer:
            settlements = Settlements(settings.policy, ledger, beliefs, observer)
            edge = Edge(settings, Verdicts(settings, ledger, beliefs, telemetry), settlements, scaling)
            await _serve(edge, options.address, (beliefs.refresh_forever(), _sweep_forever(settlements, settings)))
    finally:
        await ledger.close()
        if provider is not None:
            await asyncio.to_thread(shut_down, provider, TRACE_FLUSH_SECONDS)


async def _serve(edge: Edge, address: str, background: tuple) -> None:  # type: ignore[type-arg]
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    _stop_with_supervisor(loop, stopping)
    tasks = [asyncio.create_task(work) for work in background]
    try:
        await edge.start(address)
    except RuntimeError as fault:
        raise SidecarError(f"cannot listen on {address}: {fault}; choose another with --listen") from fault
    await edge.set_ready(ready=True)
    log.info("serving on %s", address)
    await stopping.wait()
    await edge.set_ready(ready=False)
    await asyncio.sleep(NOTICE_SECONDS)
    await edge.stop(GRACE_SECONDS)
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _stop_with_supervisor(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """The supervisor holds the other end of stdin and writes nothing: its end, even a violent one, can be read here."""

    def ended() -> None:
        loop.remove_reader(sys.stdin)
        stopping.set()

    kind = os.fstat(sys.stdin.fileno()).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):  # uvloop's pipes are sockets; others: it was started by hand
        loop.add_reader(sys.stdin, ended)


async def _sweep_forever(settlements: Settlements, settings: Settings) -> None:
    """Every worker sweeps, at its own moments; a lease is settled once whoever finds it.

    After a start and after an outage it waits until Envoy has had time to renew what still runs.
    """
    begin = time.monotonic() + 2 * settings.renewal_seconds
    while True:
        await asyncio.sleep(SWEEP_SECONDS * (0.5 + random.random()))  # noqa: S311 - spreads load, guards nothing
        for model in settings.policy.models if time.monotonic() >= begin else ():
            try:
                expired = await settlements.sweep(model.name)
            except LedgerUnavailable as fault:
                log.debug("no sweep of %s: %s", model.name, fault)
                begin = time.monotonic() + 2 * settings.renewal_seconds
                break
            if expired:
                log.warning("%d leases of %s expired without an access-log entry", expired, model.name)


def redis_url(settings: Settings, instead: str | None) -> str:
    """Raises SidecarError where none is named."""
    url = instead or settings.redis
    if url is None:
        raise SidecarError("no Redis is named: add `redis:` to the configuration or give --redis URL")
    return url
