"""The sidecar's first process: starts the workers, restarts those that die, serves the admin pages.

It also takes part in the lead: a tick of thousands of entitlements would hold up a worker's verdicts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.registry import Collector

from extproc import config
from extproc.admin import document, start_admin
from extproc.app import handover, logs
from extproc.app.faults import SidecarError
from extproc.app.options import SidecarOptions
from extproc.app.worker import redis_url
from extproc.controller import Controller
from extproc.core.observed import Decided, Settled
from extproc.core.settings import Settings, without_password
from extproc.health import Health
from extproc.redis_ledger import RedisControl, RedisLedger, connect
from extproc.telemetry import MetricsDirectory

RESTART_SECONDS = (0.1, 5.0)  # first and longest pause before a worker that died is started again
STEADY_SECONDS = 10.0  # a worker that lived so long starts again without a pause
STOP_SECONDS = 25.0  # then a worker that does not end is killed
CHECK_SECONDS = 1.0
UNIX = "unix:"

log = logging.getLogger(__name__)

_Work = Callable[[], Coroutine[Any, Any, None]]


def run_sidecar(options: SidecarOptions) -> None:
    """Runs until SIGINT or SIGTERM. Raises SidecarError where it cannot start."""
    logs.set_up(as_json=options.json_logs)
    uvloop.run(_sidecar(options))


async def _sidecar(options: SidecarOptions) -> None:
    settings = config.load(options.config)
    gc.freeze()  # thousands of entitlements, which stay: collections need not look at them
    url, unwatched = redis_url(settings, options.redis), _Unwatched()
    client = connect(url)
    ledger = RedisLedger(client, settings.policy, unwatched, lease_ms=settings.lease_seconds * 1000, timeout_ms=1000)
    health = Health(settings.policy, options.servers, settings.tick_ms / 1000)
    controller = Controller(settings, RedisControl(client, settings.policy, unwatched), health, _own_name())
    try:
        if not await ledger.alive():
            raise SidecarError(f"no Redis answers at {without_password(url)}; start it, or name another with --redis")
        with tempfile.TemporaryDirectory(prefix="tokenpool-metrics-") as folder:
            metrics = MetricsDirectory(Path(folder))
            _require_unserved(options.addresses)
            handed = Path(folder) / "settings"
            handover.write(settings, handed)
            workers = [Worker(options, index, url, metrics, handed) for index in range(len(options.addresses))]
            lives = [worker.live for worker in workers]
            overview = Overview(settings, ledger, workers, metrics)
            await _supervise(options, overview, [*lives, health.run, controller.run])
    finally:
        await ledger.close()


async def _supervise(options: SidecarOptions, overview: Overview, work: Sequence[_Work]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        admin = await start_admin(overview, options.admin_host, options.admin_port)
    except OSError as fault:
        place = f"{options.admin_host}:{options.admin_port}"
        raise SidecarError(f"cannot listen on {place}: {fault.strerror}; choose another with --admin-port") from fault
    tasks = [asyncio.create_task(one()) for one in work]
    log.info("admin pages on http://%s:%d", options.admin_host, admin.port)
    await stopping.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await admin.close()


def _own_name() -> str:
    """A process id may come again, and be the same in two containers."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def _require_unserved(addresses: tuple[str, ...]) -> None:
    """Listening on a socket file replaces it, and would take another sidecar's requests away unseen."""
    for address in addresses:
        if address.startswith(UNIX):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(address.removeprefix(UNIX)) == 0:
                    raise SidecarError(f"another process serves on {address}; choose another with --listen")


class Worker:
    """One worker process and its successors."""

    def __init__(
        self, options: SidecarOptions, index: int, redis: str, metrics: MetricsDirectory, settings: Path
    ) -> None:
        self.address = options.addresses[index]
        self._metrics = metrics
        self._environment = {**os.environ, **metrics.environ, "TOKENPOOL_REDIS": redis}  # not in the arguments: it may
        self._command = [  # hold a password
            sys.executable, "-m", "extproc.cli", "worker", "--settings", str(settings),
            "--address", self.address, "--index", str(index), *(("--json-logs",) if options.json_logs else ()),
            *(("--request-log", str(options.request_log)) if options.request_log else ()),
        ]  # fmt: skip

    async def live(self) -> None:
        """Starts the process again whenever it ends; ends it when cancelled."""
        pause, longest = RESTART_SECONDS
        while True:
            started = time.monotonic()
            try:
                await self._one_life()
            except OSError as fault:
                log.error("cannot start the worker on %s: %s", self.address, fault)  # noqa: TRY400 - it says it all
            if time.monotonic() - started > STEADY_SECONDS:
                pause = RESTART_SECONDS[0]
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _one_life(self) -> None:
        self._clear_socket()
        process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdin=asyncio.subprocess.PIPE
        )
        try:
            code = await process.wait()
            log.warning("worker %d on %s ended with %d and is started again", process.pid, self.address, code)
        except asyncio.CancelledError:
            await _end(process)
            raise
        finally:
            self._metrics.retire(process.pid)

    def _clear_socket(self) -> None:
        """A killed process leaves its socket file behind."""
        if self.address.startswith(UNIX):
            Path(self.address.removeprefix(UNIX)).unlink(missing_ok=True)

    async def unready(self) -> str | None:
        """Why this worker would not answer; None: it would."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=CHECK_SECONDS)
            except grpc.aio.AioRpcError as fault:
                return f"worker on {self.address}: {fault.code().name.lower()}"
        serving = answer.status == health_pb2.HealthCheckResponse.SERVING
        return None if serving else f"worker on {self.address}: not serving"


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        log.warning("worker %d did not end within %.0f s and is killed", process.pid, STOP_SECONDS)
        process.kill()
        await process.wait()


class Overview:
    """What the admin pages show; implements `admin.Owner`."""

    def __init__(
        self, settings: Settings, ledger: RedisLedger, workers: list[Worker], metrics: MetricsDirectory
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._workers = workers
        self._metrics = metrics

    async def state(self) -> dict[str, Any]:
        models = [model.name for model in self._settings.policy.models]
        states = await asyncio.gather(*(self._ledger.state(name) for name in models))
        return document(self._settings.policy, dict(zip(models, states, strict=True)), degraded=False)

    async def unready(self) -> tuple[str, ...]:
        reasons = await asyncio.gather(*(worker.unready() for worker in self._workers))
        found = [reason for reason in reasons if reason is not None]
        if not await self._ledger.alive():
            found.append("the shared state (Redis) does not answer")
        return tuple(found)

    def metrics(self, state: Mapping[str, Any] | None) -> Collector:
        return self._metrics.registry(state)


class _Unwatched:
    """The supervisor's own reads of the ledger are no traffic."""

    def decided(self, fact: Decided) -> None: ...

    def settled(self, fact: Settled) -> None: ...

    def preempted(self, model: str, entitlement: str, service_class: str) -> None: ...

    def ledger_call(self, operation: str, requests: int, seconds: float) -> None: ...

    def ledger_failed(self, operation: str) -> None: ...
