"""`tokenpool serve`: the sidecar, with one worker process for each address; and the hidden `worker` it consists of."""
# ruff: noqa: PLC0415 - the sidecar's modules are imported by the command that runs it, not by every other one

from __future__ import annotations

from pathlib import Path

import click

from extproc.cli import options
from extproc.cli.failures import Failure
from extproc.cli.listening import require_free

LISTEN = "127.0.0.1:50051"
ADMIN_PORT = 9464


@click.command(short_help="Run the sidecar.")
@options.config_option
@click.option(
    "--listen",
    multiple=True,
    default=[LISTEN],
    show_default=True,
    metavar="ADDRESS",
    help="host:port or unix:/path, for gRPC from Envoy. One is counted up for further workers; or give one each.",
)
@click.option("--workers", type=click.IntRange(1, options.MAX_WORKERS), help="Processes.  [default: one per core]")
@click.option("--admin-host", default="127.0.0.1", show_default=True, help="Where the admin HTTP server listens.")
@click.option("--admin-port", type=options.PORT_OR_ANY, default=ADMIN_PORT, show_default=True)
@click.option(
    "--redis", envvar="TOKENPOOL_REDIS", metavar="URL", help="Instead of `redis:` in the file.  [env: TOKENPOOL_REDIS]"
)
@options.server_option
@options.request_log_option
@click.option("--json-logs", is_flag=True, help="Log JSON lines.")
def serve(  # noqa: PLR0913 - one parameter an option
    *,
    config: Path,
    listen: tuple[str, ...],
    workers: int | None,
    admin_host: str,
    admin_port: int,
    redis: str | None,
    servers: tuple[str, ...],
    request_log: Path | None,
    json_logs: bool,
) -> None:
    """Run the sidecar until SIGINT or SIGTERM.

    Envoy must know every address: `tokenpool envoy` takes the same ones with --sidecar.

    \b
    Examples:
      tokenpool serve --config tokenpool.yaml
      tokenpool serve --listen 0.0.0.0:50051 --workers 4 --redis redis://redis:6379/0
      tokenpool serve --listen unix:/run/tokenpool/sidecar.sock --workers 2
    """  # noqa: D301 - click wants the character
    addresses, placed = options.worker_addresses(listen, workers), options.placed_servers(servers)
    settings = options.load_settings(config)
    if not (redis or settings.redis):
        raise Failure(
            f"{config} names no Redis; add `redis:` to it, give --redis URL, or use `tokenpool up` (it has its own)"
        )
    check_ports(addresses, admin_host, admin_port)
    log_file = options.writable(request_log)
    from extproc.app import SidecarError, SidecarOptions, run_sidecar

    try:
        run_sidecar(SidecarOptions(config, redis, addresses, admin_host, admin_port, json_logs, placed, log_file))
    except SidecarError as error:
        raise Failure(str(error)) from error


def check_ports(addresses: tuple[str, ...], admin_host: str, admin_port: int) -> None:
    """Asked here since gRPC sets SO_REUSEPORT: a second sidecar would silently take half of the first's requests."""
    pairs = [address.rpartition(":") for address in addresses if not address.startswith(options.UNIX)]
    grpc = [("--listen", host.strip("[]"), int(port)) for host, _, port in pairs]
    require_free(*grpc, ("--admin-port", admin_host, admin_port))


@click.command(hidden=True)
@click.option("--settings", type=click.Path(path_type=Path), required=True, help="Written by the supervisor.")
@click.option("--redis", envvar="TOKENPOOL_REDIS", metavar="URL")
@click.option("--address", required=True, help="host:port or unix:/path.")
@click.option("--index", type=click.IntRange(0), required=True, help="Which of the workers this is.")
@options.request_log_option
@click.option("--json-logs", is_flag=True)
def worker(
    *, settings: Path, redis: str | None, address: str, index: int, request_log: Path | None, json_logs: bool
) -> None:
    """One worker process of `tokenpool serve`."""
    from extproc.app import SidecarError, WorkerOptions, run_worker

    try:
        run_worker(WorkerOptions(settings, redis, address, index, json_logs, request_log))
    except SidecarError as error:
        raise Failure(str(error)) from error
