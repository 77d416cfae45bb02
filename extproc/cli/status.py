"""`tokenpool status`: what is promised and in use now."""
# ruff: noqa: PLC0415 - urllib and msgspec are for this command alone

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from extproc.cli import options, tables
from extproc.cli.failures import Failure

if TYPE_CHECKING:
    from extproc.cli.state import State, Units

ADMIN_URL = "http://127.0.0.1:9464"
ANSWER_SECONDS = 5.0
MOST_SHOWN_BYTES = 500


@click.command(short_help="Show what is promised and in use.")
@click.option("--admin-url", default=ADMIN_URL, show_default=True, help="The sidecar's admin server.")
@options.json_option
def status(admin_url: str, as_json: bool) -> None:
    """Show pools and entitlements: what is in use of what there is, for each of the three units.

    A share is what a tenant may use even while everybody wants more; debt, from -1 to 1, is how much less than its base
    it had of late.

    \b
    Examples:
      tokenpool status
      tokenpool status --json | jq '.models[].leases'
    """  # noqa: D301 - click wants the character
    import msgspec

    from extproc.cli.state import State

    body = fetch(f"{admin_url.rstrip('/')}/api/v1/state", admin_url)
    try:
        state = msgspec.json.decode(body, type=State)
    except msgspec.MsgspecError as error:
        raise Failure(
            f"what answers at {admin_url} is not Tokenpool's admin server ({error}); see --admin-url"
        ) from error
    if as_json:
        click.echo(body.decode())
    else:
        show(state)


def fetch(url: str, admin_url: str) -> bytes:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--admin-url {admin_url!r} is no http:// or https:// URL")
    try:
        with urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - checked above
            body: bytes = answer.read()
    except HTTPError as error:
        with error:  # it is the response, still open
            said = error.read(MOST_SHOWN_BYTES).decode(errors="replace")
        raise Failure(f"{url} answers {error.code}: {' '.join(said.split())}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise Failure(
            f"nothing answers at {admin_url} ({reason}); start `tokenpool up` or `tokenpool serve`, or give --admin-url"
        ) from error
    return body


def show(state: State) -> None:
    if state.degraded:
        click.echo("Degraded: Redis does not answer, each sidecar decides by its own share.\n")
    tables.show(
        "Pools (in use / capacity)",
        ("model", "pool", ">servers", ">desired", ">tokens/s", ">KV tokens", ">concurrency"),
        pool_rows(state),
    )
    tables.show(
        "Entitlements (in use / share / at most)",
        (
            *("model", "entitlement", "class", ">tokens/s", ">KV tokens", ">concurrency"),
            *(">debt", ">waiting", ">balance", ">settled"),
        ),
        entitlement_rows(state),
    )


def pool_rows(state: State) -> Iterator[tuple[str, ...]]:
    for model_name, model in state.models.items():
        for name, pool in model.pools.items():
            desired = "-" if pool.desired is None else str(pool.desired)
            yield (model_name, name, str(pool.servers), desired, *fractions(pool.in_use, pool.capacity))


def entitlement_rows(state: State) -> Iterator[tuple[str, ...]]:
    for model_name, model in state.models.items():
        for name, one in model.entitlements.items():
            settled = one.settled.prompt + one.settled.completion
            yield (
                *(model_name, name, one.service_class, *fractions(one.in_use, one.share, one.cap)),
                *(
                    f"{round(one.debt, 2) + 0:.2f}",
                    str(one.waiting),
                    tables.number(one.balance_tokens),
                    tables.number(settled),
                ),
            )


def fractions(*vectors: Units) -> tuple[str, ...]:
    """Each unit as n/m: the first vector's value over the others'."""
    units = ("tokens_per_second", "kv_tokens", "concurrency")
    return tuple("/".join(tables.number(getattr(vector, unit)) for vector in vectors) for unit in units)
