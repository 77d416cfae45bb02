"""`tokenpool envoy`: Envoy's configuration, as the file implies it."""
# ruff: noqa: PLC0415 - Envoy's types take a second to import

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from extproc.cli import options
from extproc.cli.failures import Failure
from extproc.cli.serve import LISTEN

if TYPE_CHECKING:
    from extproc.envoy_config import Deployment, SimulatedServer


@click.command(short_help="Write Envoy's configuration.")
@options.config_option
@click.option("--host", "--listen", default="127.0.0.1", show_default=True, help="Where clients reach Envoy.")
@click.option("--port", type=options.PORT, default=8080, show_default=True, help="For clients.")
@click.option("--admin-host", default="127.0.0.1", show_default=True, help="Where Envoy's admin server listens.")
@click.option("--admin-port", type=options.PORT, default=9901, show_default=True)
@click.option(
    "--sidecar",
    multiple=True,
    default=[LISTEN],
    show_default=True,
    metavar="ADDRESS",
    help="As `tokenpool serve --listen` has it. One is counted up for further workers; or give one each.",
)
@click.option("--workers", type=click.IntRange(1, options.MAX_WORKERS), help="Of the sidecar.  [default: one per core]")
@options.server_option
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write files for a running Envoy to follow.",
)
def envoy(  # noqa: PLR0913 - one parameter an option
    *,
    config: Path,
    host: str,
    port: int,
    admin_host: str,
    admin_port: int,
    sidecar: tuple[str, ...],
    workers: int | None,
    servers: tuple[str, ...],
    output: Path | None,
) -> None:
    """Print Envoy's configuration, or write it to a directory that Envoy follows when it changes.

    \b
    Examples:
      tokenpool envoy --config tokenpool.yaml > envoy.yaml && envoy -c envoy.yaml
      tokenpool envoy --sidecar 10.0.0.7:50051 --workers 4 --output /etc/envoy
    """  # noqa: D301 - click wants the character
    from extproc.envoy_config import Deployment

    deployment = Deployment(
        sidecars=options.worker_addresses(sidecar, workers),
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port,
        endpoints=simulated(servers),
    )
    write(config, deployment, output)


def write(config: Path, deployment: Deployment, output: Path | None) -> None:
    from extproc.envoy_config import UnknownServerError, dump, static_config, write_xds

    settings = options.load_settings(config)
    try:
        if output is None:
            click.echo(dump(static_config(settings, deployment)), nl=False)
        else:
            click.echo(f"Start Envoy with: envoy -c {write_xds(settings, deployment, output)}")
    except UnknownServerError as error:
        raise Failure(
            f"{error}; say where it listens with --server MODEL/POOL=http://HOST:PORT, or use `tokenpool up`"
        ) from error


def simulated(servers: tuple[str, ...]) -> dict[SimulatedServer, str]:
    from extproc.envoy_config import SimulatedServer

    return {SimulatedServer(*place): url for place, url in options.placed_servers(servers).items()}
