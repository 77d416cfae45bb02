"""The local stack: everything started in order, watched, and stopped in reverse order whatever happens."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from extproc.core.metadata import cluster_name
from extproc.core.policy import Policy
from extproc.core.settings import Settings
from extproc.envoy_config import Deployment, SimulatedServer, write_xds
from extproc.local import drain, ports, programs, readiness, redis_reach, simulators, valkey
from extproc.local.processes import Children

LOOPBACK = "127.0.0.1"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux, 104 on macOS
LONGEST_SOCKET_NAME = 20


@dataclass(frozen=True, slots=True)
class StackOptions:
    config: Path
    workers: int
    host: str = LOOPBACK  # of Envoy's listener; all else stays on loopback
    port: int = 8080
    admin_port: int = 9464
    envoy_admin_port: int = 9901
    echo_logs: bool = False


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
    port, admin_port, envoy_admin_port = settle_ports(options)
    if settings.redis is not None:
        redis_reach.check(settings.redis)
    with run_directory() as run_dir:
        edge_host = ports.reachable_host(options.host)
        addresses = Addresses(
            edge=f"http://{ports.authority(edge_host, port)}",
            admin=f"http://{LOOPBACK}:{admin_port}",
            envoy_admin=f"http://{LOOPBACK}:{envoy_admin_port}",
            run_dir=run_dir,
        )
        deployment = Deployment(
            sidecars=tuple(f"unix:{run_dir}/sidecar-{index}.sock" for index in range(options.workers)),
            host=options.host,
            port=port,
            admin_host=LOOPBACK,
            admin_port=envoy_admin_port,
        )
        async with Children(run_dir, echo=options.echo_logs) as children:
            with stop_signals(children):
                await live(children, Plan(options, settings, deployment, addresses), announce)


@dataclass(frozen=True, slots=True)
class Plan:
    options: StackOptions
    settings: Settings
    deployment: Deployment
    addresses: Addresses


async def live(children: Children, plan: Plan, announce: Announcements) -> None:
    if await children.while_alive(start_all(children, plan, announce.progress)) is None:
        return
    announce.ready(plan.addresses)
    await children.until_over()
    await drain.drain(plan.addresses.envoy_admin)


async def start_all(children: Children, plan: Plan, tell: Callable[[str], None]) -> bool:
    """True once a request would succeed."""
    redis = await start_redis(children, plan)
    await start_sidecar(children, plan, redis)
    servers = await start_simulators(children, plan.settings.policy)
    await start_envoy(children, plan, servers)
    await readiness.ready(probes(plan), tell)
    return True


async def start_redis(children: Children, plan: Plan) -> str:
    """The URL of the shared state: the configured one, or our own."""
    if plan.settings.redis is not None:
        return plan.settings.redis
    await valkey.ready(await valkey.start(children, plan.addresses.run_dir))
    return valkey.url(plan.addresses.run_dir)


async def start_sidecar(children: Children, plan: Plan, redis: str) -> None:
    # A configured URL may hold a password: the sidecar reads it from the file, not from a public argument list.
    own_redis = ("--redis", redis) if plan.settings.redis is None else ()
    await children.start(
        "sidecar",
        programs.tokenpool(
            "serve",
            *("--config", str(plan.options.config)),
            *own_redis,
            *(part for address in plan.deployment.sidecars for part in ("--listen", address)),
            *("--admin-host", LOOPBACK, "--admin-port", plan.addresses.admin.rpartition(":")[2]),
        ),
    )


async def start_simulators(children: Children, policy: Policy) -> Mapping[SimulatedServer, str]:
    """All at once, since each takes a moment; where they listen, when all do."""
    started = [(server, await simulators.start(children, server)) for server in simulators.simulated(policy)]
    return {server.place: await simulators.url(child) for server, child in started}


async def start_envoy(children: Children, plan: Plan, servers: Mapping[SimulatedServer, str]) -> None:
    deployment = with_servers(plan.deployment, servers)
    bootstrap = write_xds(plan.settings, deployment, plan.addresses.run_dir / "envoy")
    await children.start(
        "envoy",
        (
            *(str(programs.envoy()), "--config-path", str(bootstrap)),
            *("--disable-hot-restart", "--log-level", "warning"),
        ),
    )


def with_servers(deployment: Deployment, servers: Mapping[SimulatedServer, str]) -> Deployment:
    return Deployment(
        sidecars=deployment.sidecars,
        host=deployment.host,
        port=deployment.port,
        admin_host=deployment.admin_host,
        admin_port=deployment.admin_port,
        endpoints=servers,
    )


def settle_ports(options: StackOptions) -> tuple[int, ...]:
    return ports.settle(
        (
            ports.Wanted("--port", options.host, options.port),
            ports.Wanted("--admin-port", LOOPBACK, options.admin_port),
            ports.Wanted("--envoy-admin-port", LOOPBACK, options.envoy_admin_port),
        )
    )


def probes(plan: Plan) -> readiness.Probes:
    return readiness.Probes(
        admin=plan.addresses.admin,
        envoy_admin=plan.addresses.envoy_admin,
        edge=plan.addresses.edge,
        clusters=tuple(
            cluster_name(model.name, pool.name) for model in plan.settings.policy.models for pool in model.pools
        ),
    )


@contextmanager
def run_directory() -> Iterator[Path]:
    """A directory for sockets, logs and Envoy's files; gone afterwards."""
    parent = tempfile.gettempdir()
    if len(parent) + LONGEST_SOCKET_NAME * 2 > MAX_SOCKET_PATH:
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
