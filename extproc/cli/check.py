"""`tokenpool check`: whether a configuration is right, and what it promises."""
# ruff: noqa: PLC0415 - pydantic and rich take a while to import, and most commands need neither

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extproc.cli import options, tables
from extproc.cli.failures import Failure

if TYPE_CHECKING:
    from extproc.config import ConfigError
    from extproc.core.policy import Entitlement, Model, Policy, Pool, Vector
    from extproc.core.settings import Settings

UNIT_COLUMNS = (">tokens/s", ">KV tokens", ">concurrency")


@click.command(short_help="Validate a configuration.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--config", "-c", type=click.Path(path_type=Path), help="The same as FILE.")
@options.json_option
def check(file: Path | None, config: Path | None, as_json: bool) -> None:
    """Validate a configuration FILE (default: tokenpool.yaml) and sum up what it promises.

    Every mistake is shown at once, each with its line. Exit code 1 where there is one; warnings leave it at 0.

    \b
    Example:
      tokenpool check tokenpool.yaml
    """  # noqa: D301 - click wants the character
    from extproc.config import ConfigError, load, warnings

    path = file or config or Path("tokenpool.yaml")
    try:
        settings = load(path)
    except ConfigError as error:
        report_mistakes(error, as_json)
        raise SystemExit(1) from error
    doubts = warnings(settings)
    if as_json:
        click.echo(json.dumps({"ok": True, "mistakes": [], "warnings": doubts, "models": summary(settings.policy)}))
        return
    for doubt in doubts:
        click.echo(f"tokenpool: {path}: warning: {doubt}", err=True)
    show(path, settings)


def report_mistakes(error: ConfigError, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"ok": False, "mistakes": [asdict(mistake) for mistake in error.mistakes]}))
    Failure(*str(error).splitlines()).show()


def show(path: Path, settings: Settings) -> None:
    policy = settings.policy
    click.echo(f"{path} is right: {count(policy.models, 'model')}, {count(policy.entitlements, 'entitlement')}.\n")
    tables.show("Capacity", ("model", "pool", ">servers", ">longest request", *UNIT_COLUMNS), capacity_rows(policy))
    tables.show("Promised", ("model", "class", ">entitlements", *UNIT_COLUMNS), promise_rows(policy))
    tables.show("Servers for the promises", ("model", "pool", ">needed", ">configured"), server_rows(policy))


def count(things: tuple[object, ...], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def capacity_rows(policy: Policy) -> Iterator[tuple[str, ...]]:
    for model in policy.models:
        for pool in model.pools:
            servers = len(pool.endpoints)
            yield (model.name, pool.name, str(servers), tables.number(pool.max_model_len), *cells(pool.capacity))


def promise_rows(policy: Policy) -> Iterator[tuple[str, ...]]:
    """A row for each class that somebody has; then the sum, as a part of the capacity."""
    from extproc.core.policy import ServiceClass

    for model in policy.models:
        own = claims(policy, model)
        for service_class in ServiceClass:
            members = [one for one in own if one.service_class is service_class]
            if members:
                yield (model.name, service_class.value, str(len(members)), *cells(promised(members)))
        yield (model.name, "all, of capacity", str(len(own)), *of_capacity(promised(own), model.capacity))


def server_rows(policy: Policy) -> Iterator[tuple[str, ...]]:
    for model in policy.models:
        for pool in model.pools:
            yield (model.name, pool.name, str(servers_needed(policy, model, pool)), str(len(pool.endpoints)))


def servers_needed(policy: Policy, model: Model, pool: Pool) -> int:
    """What the controller asks for while nothing is in demand: every such base stands in every pool."""
    import numpy as np

    from extproc.core.policy import UNITS
    from extproc.core.scaling import needed

    bases = promised([one for one in claims(policy, model) if one.service_class.promised])
    reserved = np.array([getattr(bases, unit) for unit in UNITS], dtype=np.float64)
    return needed(pool, model.scaling, reserved, np.zeros_like(reserved))


def claims(policy: Policy, model: Model) -> list[Entitlement]:
    return list(policy.entitlements_of(model.name))


def promised(entitlements: list[Entitlement]) -> Vector:
    from extproc.core.policy import Vector

    total = Vector()
    for one in entitlements:
        total += one.base
    return total


def cells(vector: Vector) -> tuple[str, ...]:
    return tuple(tables.number(value) for value in asdict(vector).values())


def of_capacity(part: Vector, whole: Vector) -> tuple[str, ...]:
    wholes = asdict(whole)
    return tuple(f"{value / wholes[unit]:.0%}" if wholes[unit] else "-" for unit, value in asdict(part).items())


def summary(policy: Policy) -> dict[str, Any]:
    from extproc.core.policy import ServiceClass

    return {
        model.name: {
            "pools": {
                pool.name: {
                    "servers": len(pool.endpoints),
                    "servers_needed": servers_needed(policy, model, pool),
                    "capacity": asdict(pool.capacity),
                }
                for pool in model.pools
            },
            "capacity": asdict(model.capacity),
            "promised": {
                one.value: asdict(promised([who for who in claims(policy, model) if who.service_class is one]))
                for one in ServiceClass
            },
        }
        for model in policy.models
    }
