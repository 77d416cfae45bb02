"""Options that several commands share, and what they are read into."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from extproc.cli.failures import Failure

if TYPE_CHECKING:
    from extproc.core.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

UNIX = "unix:"
MAX_PORT = 65_535
PORT = click.IntRange(1, MAX_PORT)
PORT_OR_ANY = click.IntRange(0, MAX_PORT)
MAX_WORKERS = 256


def grouped(name: str, values: Callable[..., Any], decorators: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Gives a command these options; it takes them as one keyword, a dataclass with their names as its fields."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def gathered(*args: Any, **given: Any) -> Any:  # noqa: ANN401 - whatever the command's are
            found = values(**{field.name: given.pop(field.name) for field in fields(values)})  # type: ignore[arg-type]
            return command(*args, **{name: found}, **given)

        return functools.reduce(lambda function, option: option(function), reversed(decorators), cast("F", gathered))

    return decorate


def config_option(command: F) -> F:
    return click.option(
        "--config",
        "-c",
        type=click.Path(path_type=Path),
        default=Path("tokenpool.yaml"),
        show_default=True,
        help="The configuration file.",
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def server_option(command: F) -> F:
    return click.option(
        "--server",
        "servers",
        multiple=True,
        metavar="MODEL/POOL=URL",
        help="Where the simulator of a sim:// endpoint listens; repeated for a pool's next one.",
    )(command)


def request_log_option(command: F) -> F:
    return click.option(
        "--request-log",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Append a JSON line for each settled request: lengths, times, names; no text, no keys.",
    )(command)


def writable(path: Path | None) -> Path | None:
    """The same file, made if it is not there, by its full name. Raises OSError where it cannot be written."""
    if path is None:
        return None
    with path.open("ab"):
        return path.absolute()


def placed_servers(given: Sequence[str]) -> dict[tuple[str, str, int], str]:
    """URLs by model, pool and number: a pool's servers are numbered in the order given."""
    known: dict[tuple[str, str, int], str] = {}
    for one in given:
        place, _, url = one.partition("=")
        model, _, pool = place.rpartition("/")
        if not (model and pool and url.startswith(("http://", "https://"))):
            raise click.UsageError(f"--server {one!r} is not MODEL/POOL=http://HOST:PORT")
        index = sum(1 for known_model, known_pool, _ in known if (known_model, known_pool) == (model, pool))
        known[model, pool, index] = url
    return known


def load_settings(config: Path) -> Settings:
    """The configuration, or every mistake in it as one failure."""
    from extproc.config import ConfigError, load  # noqa: PLC0415 - pydantic takes a while to import

    try:
        return load(config)
    except ConfigError as error:
        raise Failure(*str(error).splitlines()) from error


def cores() -> int:
    """The processors this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_addresses(given: Sequence[str], workers: int | None) -> tuple[str, ...]:
    """One address for each worker. Several given: those. One given: counted up from it.

    127.0.0.1:50051 becomes :50051, :50052, ...; unix:/run/a.sock becomes /run/a-0.sock, /run/a-1.sock, ...
    """
    for address in given:
        check_address(address)
    if len(given) > 1:
        if workers not in (None, len(given)):
            raise click.UsageError(f"{len(given)} addresses for {workers} workers; give one address, or one each")
        return tuple(given)
    count = workers or cores()
    return tuple(nth_address(given[0], index) if count > 1 else given[0] for index in range(count))


def check_address(address: str) -> None:
    if address.startswith(UNIX):
        good = address.startswith(f"{UNIX}/")
    else:
        host, _, port = address.rpartition(":")
        good = bool(host) and port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT
    if not good:
        raise click.UsageError(f"{address!r} is no address; give host:port or unix:/path")


def nth_address(first: str, index: int) -> str:
    if first.startswith(UNIX):
        path = Path(first.removeprefix(UNIX))
        return f"{UNIX}{path.with_name(f'{path.stem}-{index}{path.suffix}')}"
    host, _, port = first.rpartition(":")
    if int(port) + index > MAX_PORT:
        raise click.UsageError(f"there are not enough ports above {port}; give a lower one")
    return f"{host}:{int(port) + index}"
