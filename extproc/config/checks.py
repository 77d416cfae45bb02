"""What the parts of the file must not say together: names and keys that collide, promises that cannot be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from extproc.config.conversion import model as converted_model
from extproc.config.keys import Key
from extproc.config.mistakes import KeyPath, Problem, dotted
from extproc.config.schema import SIM, EntitlementPart, ModelPart
from extproc.config.validation import Valid
from extproc.core.policy import UNITS, Model, ServiceClass

RESERVED = (ServiceClass.DEDICATED, ServiceClass.GUARANTEED)  # never refused within their base


@dataclass(frozen=True, slots=True)
class Found:
    """The parts that fit the schema, and the keys of the entitlements among them by index."""

    valid: Valid
    keys: Mapping[int, tuple[Key, ...]]

    @property
    def models(self) -> Mapping[int, ModelPart]:
        return self.valid.models

    @property
    def entitlements(self) -> Mapping[int, EntitlementPart]:
        return self.valid.entitlements


def run(found: Found) -> list[Problem]:
    return [problem for check in _CHECKS for problem in check(found)]


def _model_names(found: Found) -> Iterator[Problem]:
    names: list[tuple[str, KeyPath]] = []
    for index, part in found.models.items():
        names.append((part.name, ("models", index, "name")))
    for index, part in found.models.items():  # a name outranks an alias: the alias is the one to change
        names.extend((alias, ("models", index, "aliases", number)) for number, alias in enumerate(part.aliases))
    yield from _duplicates(names, "{value!r} is already taken by {first}; each name and alias must be unique")


def _entitlement_names(found: Found) -> Iterator[Problem]:
    names = ((part.name, ("entitlements", index, "name")) for index, part in found.entitlements.items())
    yield from _duplicates(names, "{value!r} is already taken by {first}; names are unique in the whole file")


def _endpoints(found: Found) -> Iterator[Problem]:
    endpoints = (
        (endpoint.lower(), ("models", index, "pools", name, "endpoints", number))
        for index, part in found.models.items()
        for name, pool in part.pools.items()
        for number, endpoint in enumerate(pool.endpoints)
        if not endpoint.startswith(SIM)
    )
    yield from _duplicates(endpoints, "{value} is already listed at {first}; a server's capacity counts once")


def _duplicates(values: Iterable[tuple[str, KeyPath]], message: str) -> Iterator[Problem]:
    seen: dict[str, KeyPath] = {}
    for value, path in values:
        first = seen.setdefault(value, path)
        if first is not path:
            yield Problem(path, message.format(value=value, first=dotted(first)))


def _known_models(found: Found) -> Iterator[Problem]:
    names = found.valid.model_names
    if not names:
        return  # what is wrong with the models is reported already
    aliases = {alias: part.name for part in found.models.values() for alias in part.aliases}
    for index, part in found.entitlements.items():
        if part.model in names:
            continue
        near = get_close_matches(part.model, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the models are {', '.join(sorted(names))}"
        if part.model in aliases:
            hint = f"it is an alias: write {aliases[part.model]}"
        yield Problem(("entitlements", index, "model"), f"no model is named {part.model!r}; {hint}")


def _keys(found: Found) -> Iterator[Problem]:
    owners: dict[tuple[str, str], int] = {}
    for index, part in found.entitlements.items():
        for key in found.keys[index]:
            pair = (part.model, key.hash)
            if pair in owners:
                yield key.problem(_taken(found.entitlements[owners[pair]].name, own=owners[pair] == index))
            owners.setdefault(pair, index)


def _taken(owner: str, *, own: bool) -> str:
    if own:
        return "this key is listed twice; keep one"
    return f"this key belongs to {owner} of the same model already; a key names one entitlement of a model"


def _bursts(found: Found) -> Iterator[Problem]:
    for index, part in found.entitlements.items():
        for unit in UNITS:
            cap, own = getattr(part.burst, unit), getattr(part, unit)
            if cap is not None and cap < own:
                yield Problem(("entitlements", index, "burst", unit), f"must be at least {unit}, {own}; got {cap}")


def _thresholds(found: Found) -> Iterator[Problem]:
    for index, part in found.models.items():
        longest = max(pool.max_model_len for pool in part.pools.values())
        threshold = part.routing.threshold_tokens
        if "threshold_tokens" in part.routing.model_fields_set and threshold > longest:
            path = ("models", index, "routing", "threshold_tokens")
            yield Problem(path, f"must be at most {longest}, the max_model_len of the longest pool; got {threshold}")


def _promises(found: Found) -> Iterator[Problem]:
    for index, part in found.models.items():
        promised = [
            item for item in found.entitlements.values() if item.model == part.name and item.service_class in RESERVED
        ]
        model = converted_model(part)
        for unit in UNITS:
            total, capacity = sum(getattr(item, unit) for item in promised), getattr(model.capacity, unit)
            if total > capacity:
                who = ", ".join(f"{item.name} {getattr(item, unit)}" for item in promised)
                yield Problem(
                    ("models", index),
                    f"is over-committed: {total} {unit} are promised ({who}), but its pools have {capacity}; "
                    f"it needs {_servers_for(model, unit, total - capacity)}, or promises of at most {capacity}",
                )


def _servers_for(model: Model, unit: str, shortfall: int) -> str:
    """How many servers a pool would need to make up for the shortfall, pool by pool."""
    offers = []
    for pool in model.pools:
        servers = len(pool.endpoints) - (-shortfall // getattr(pool.server_capacity, unit))
        offers.append(f"{servers} servers in pool {pool.name} (now {len(pool.endpoints)})")
    return " or ".join(offers)


_CHECKS: tuple[Callable[[Found], Iterator[Problem]], ...] = (
    _model_names,
    _entitlement_names,
    _endpoints,
    _known_models,
    _keys,
    _bursts,
    _thresholds,
    _promises,
)
