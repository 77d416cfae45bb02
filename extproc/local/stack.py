"""The local stack: everything started in order, watched, and stopped in reverse order whatever happens."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from extproc.core.metadata import cluster_name
from extproc.core.settings import Settings
from extproc.envoy_config import Deployment, SimulatedServer, write_xds
from extproc.local import drain, ports, programs, readiness, redis_reach, simulators, valkey
from extproc.local.processes import Children
from extproc.local.simulators import Simulated

LOOPBACK = "127.0.0.1"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux, 104 on macOS
LONGEST_SOCKET = len("/tokenpool-12345678/sidecar-255.sock")


@dataclass(frozen=True, slots=True)
class StackOptions:
    config: Path
    workers: int
    host: str = LOOPBACK  # of Envoy's listener; all else stays on loopback
    port: int = 8080
    admin_port: int = 9464
    envoy_admin_port: int = 9901
    echo_logs: bool = False
    request_log: Path | None = None  # of the sidecar


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the running stack is found."""

    edge: str
    admin: str
    envoy_admin: str
    run_dir: Path


@dataclass(frozen=True, slots=True)
class Announcements:
    """Who is told what happens."""

    ready: Callable[[Addresses], None]
    progress: Callable[[str], None]


async def run(options: StackOptions, settings: Settings, announce: Announcements) -> None:
    """Runs until SIGINT or SIGTERM. Raises StackError where something cannot start or dies; all is stopped by then."""
    settled = settle_ports(options)
    simulators.check(settings.policy)
    if settings.redis is not None:
        redis_reach.check(settings.redis)
    with run_directory() as run_dir:
        async with Children(run_dir, echo=options.echo_logs) as children:
            with stop_signals(children):
                await Stack(settled, run_dir, children, announce).live(settings)


class Stack:
    """One running stack. Its ports are settled: none of them is 0."""

    def __init__(self, options: StackOptions, run_dir: Path, children: Children, announce: Announcements) -> None:
        self._options = options
        self._run_dir = run_dir
        self._children = children
        self._announce = announce
        self._simulators: dict[Simulated, str] = {}  # where each listens
        self._addresses: dict[SimulatedServer, str] = {}  # of those configured now
        edge_host = ports.reachable_host(options.host)
        self.addresses = Addresses(
            edge=f"http://{ports.authority(edge_host, options.port)}",
            admin=f"http://{LOOPBACK}:{options.admin_port}",
            envoy_admin=f"http://{LOOPBACK}:{options.envoy_admin_port}",
            run_dir=run_dir,
        )

    async def live(self, settings: Settings) -> None:
        """Starts everything and keeps it until asked to stop. Raises StackError."""
        if not await self._children.while_alive(self.start(settings)):
            return
        self._announce.ready(self.addresses)
        await self._children.until_over()
        await drain.drain(self.addresses.envoy_admin)

    async def start(self, settings: Settings) -> bool:
        """True once a request would succeed."""
        own_redis = await self._start_redis() if settings.redis is None else None
        await self.configure(settings)
        await self._start_sidecar(settings, own_redis)
        await self._start_envoy()
        await readiness.ready(self._probes(settings), self._announce.progress)
        return True

    async def configure(self, settings: Settings) -> None:
        """Envoy's files, with a simulator for each `sim://` endpoint that has none; a running Envoy follows them."""
        wanted = list(simulators.simulated(settings.policy))
        # All are started before the first is waited for: each takes a moment.
        new = [(one, await simulators.start(self._children, one)) for one in wanted if one not in self._simulators]
        for one, child in new:
            self._simulators[one] = await simulators.listening(child)
        self._addresses = {one.place: self._simulators[one] for one in wanted}
        write_xds(settings, replace(self._deployment(), endpoints=self._addresses), self._envoy_files)

    @property
    def _envoy_files(self) -> Path:
        return self._run_dir / "envoy"

    def _deployment(self) -> Deployment:
        workers = range(self._options.workers)
        return Deployment(
            sidecars=tuple(f"unix:{self._run_dir}/sidecar-{index}.sock" for index in workers),
            host=self._options.host,
            port=self._options.port,
            admin_host=LOOPBACK,
            admin_port=self._options.envoy_admin_port,
        )

    async def _start_redis(self) -> str:
        await valkey.ready(await valkey.start(self._children, self._run_dir))
        return valkey.url(self._run_dir)

    async def _start_sidecar(self, settings: Settings, own_redis: str | None) -> None:
        """A configured Redis URL may hold a password: the sidecar reads it itself, argument lists are public."""
        redis = ("--redis", own_redis) if own_redis else ()
        request_log = ("--request-log", str(self._options.request_log)) if self._options.request_log else ()
        addresses = [part for address in self._deployment().sidecars for part in ("--listen", address)]
        command = programs.tokenpool(
            *("serve", "--config", str(self._options.config), *redis, *request_log),
            *("--workers", str(self._options.workers), *addresses),
            *(part for server in self._servers(settings) for part in ("--server", server)),
            *("--admin-host", LOOPBACK, "--admin-port", str(self._options.admin_port)),
        )
        await self._children.start("sidecar", command)

    def _servers(self, settings: Settings) -> Iterator[str]:
        """MODEL/POOL=URL of all servers, in order: those of a pool that are not simulated count, too."""
        for model in settings.policy.models:
            for pool in model.pools:
                for index, endpoint in enumerate(pool.endpoints):
                    simulated = SimulatedServer(model.name, pool.name, index)
                    yield f"{model.name}/{pool.name}={self._addresses.get(simulated, endpoint)}"

    async def _start_envoy(self) -> None:
        bootstrap = self._envoy_files / "bootstrap.yaml"
        options = ("--disable-hot-restart", "--log-level", "warning")
        await self._children.start("envoy", (str(programs.envoy()), "--config-path", str(bootstrap), *options))

    def _probes(self, settings: Settings) -> readiness.Probes:
        models = settings.policy.models
        return readiness.Probes(
            admin=self.addresses.admin,
            envoy_admin=self.addresses.envoy_admin,
            edge=self.addresses.edge,
            clusters=tuple(cluster_name(model.name, pool.name) for model in models for pool in model.pools),
        )


def settle_ports(options: StackOptions) -> StackOptions:
    """The same options with real ports. Raises StackError where one cannot be had."""
    port, admin_port, envoy_admin_port = ports.settle(
        (
            ports.Wanted("--port", options.host, options.port),
            ports.Wanted("--admin-port", LOOPBACK, options.admin_port),
            ports.Wanted("--envoy-admin-port", LOOPBACK, options.envoy_admin_port),
        )
    )
    return replace(options, port=port, admin_port=admin_port, envoy_admin_port=envoy_admin_port)


@contextmanager
def run_directory() -> Iterator[Path]:
    """A directory for sockets, logs and Envoy's files; gone afterwards."""
    parent = tempfile.gettempdir()
    if len(parent) + LONGEST_SOCKET > MAX_SOCKET_PATH:
        parent = "/tmp"  # noqa: S108 - mkdtemp makes a private directory in it
    directory = Path(tempfile.mkdtemp(prefix="tokenpool-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def stop_signals(children: Children) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for one in STOP_SIGNALS:
        loop.add_signal_handler(one, children.ask_to_stop)
    try:
        yield
    finally:
        for one in STOP_SIGNALS:
            loop.remove_signal_handler(one)
