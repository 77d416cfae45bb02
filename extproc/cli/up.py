"""`tokenpool up`: everything on this machine, from Envoy to simulated servers."""
# ruff: noqa: PLC0415 - what only this command needs, the others need not wait for

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extproc.cli import options
from extproc.cli.failures import Failure

if TYPE_CHECKING:
    from extproc.core.settings import Settings
    from extproc.local.stack import Addresses, StackOptions

DEMO_KEY = "sk-tokenpool-demo"  # of the example configuration, so that its first request can be copied
MOST_WORKERS = 4  # for one machine that simulates the servers as well


@click.command(short_help="Start everything on this machine.")
@options.config_option
@click.option("--port", type=options.PORT_OR_ANY, default=8080, show_default=True, help="For clients. 0: any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where clients reach Envoy; all else stays local.")
@click.option("--admin-port", type=options.PORT_OR_ANY, default=9464, show_default=True, help="Metrics and state.")
@click.option("--envoy-admin-port", type=options.PORT_OR_ANY, default=9901, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(1, options.MAX_WORKERS),
    help=f"Processes of the sidecar.  [default: one per core, {MOST_WORKERS} at most]",
)
@options.request_log_option
@click.option("--verbose", "-v", is_flag=True, help="Show the logs of everything on stderr.")
def up(  # noqa: PLR0913 - one parameter an option
    *,
    config: Path,
    port: int,
    host: str,
    admin_port: int,
    envoy_admin_port: int,
    workers: int | None,
    request_log: Path | None,
    verbose: bool,
) -> None:
    """Start Envoy, the sidecar, Valkey (unless the file names a Redis) and simulated servers.

    Runs until Ctrl-C or SIGTERM, then stops everything it started.

    \b
    Example:
      tokenpool up --config tokenpool.yaml
    """  # noqa: D301 - click wants the character
    settings = options.load_settings(config)
    from extproc.local.stack import StackOptions

    run_stack(
        StackOptions(
            config=config,
            workers=workers or min(options.cores(), MOST_WORKERS),
            host=host,
            port=port,
            admin_port=admin_port,
            envoy_admin_port=envoy_admin_port,
            echo_logs=verbose,
            request_log=options.writable(request_log),
        ),
        settings,
    )


def run_stack(stack: StackOptions, settings: Settings) -> None:
    import asyncio

    from extproc.local.faults import StackError
    from extproc.local.stack import Announcements, run

    announcements = Announcements(
        ready=lambda addresses: announce(addresses, settings, stack.config),
        progress=lambda line: click.echo(f"tokenpool: {line}", err=True),
    )
    try:
        asyncio.run(run(stack, settings, announcements))
    except StackError as error:
        raise Failure(*str(error).splitlines()) from error


def announce(addresses: Addresses, settings: Settings, config: Path) -> None:
    """The first line is for programs: exactly this, once a request would succeed."""
    click.echo(f"tokenpool is ready: {addresses.edge}/v1")
    click.echo(f"\n  {example_request(addresses.edge, settings)}\n")
    click.echo(f"  state    tokenpool status --admin-url {addresses.admin}")
    click.echo(f"  metrics  {addresses.admin}/metrics")
    click.echo(f"  Envoy    {addresses.envoy_admin}")
    click.echo(f"  logs     {addresses.run_dir}")
    click.echo(f"  config   {config}\n\nCtrl-C stops everything.")


def example_request(edge: str, settings: Settings) -> str:
    """A command to paste. The demo key's where the configuration knows it, else a stand-in."""
    demo_hash = "sha256:" + hashlib.sha256(DEMO_KEY.encode()).hexdigest()
    demo = [one for one in settings.policy.entitlements if demo_hash in one.key_hashes]
    model = demo[0].model if demo else settings.policy.models[0].name
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 32}
    return " ".join(
        (
            f"curl {edge}/v1/chat/completions",
            f"-H 'authorization: Bearer {DEMO_KEY if demo else 'YOUR_KEY'}'",
            "-H 'content-type: application/json'",
            f"-d {shlex.quote(json.dumps(body))}",
        )
    )
