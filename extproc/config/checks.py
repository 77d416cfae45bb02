"""What the parts of the file must not say together: names and keys that collide, promises that cannot be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from extproc.config.conversion import model as converted_model
from extproc.config.keys import Key
from extproc.config.mistakes import KeyPath, Problem, dotted
from extproc.config.promises import Promised
from extproc.config.schema import EntitlementPart, ModelPart
from extproc.config.validation import Valid
from extproc.core.policy import SIMULATED, UNITS, Pool


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
        if not endpoint.startswith(SIMULATED)
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
            path: KeyPath = ("models", index, "routing", "threshold_tokens")
            yield Problem(path, f"must be at most {longest}, the max_model_len of the longest pool; got {threshold}")
        for name, pool in part.pools.items():
            if pool.threshold_tokens is not None and pool.threshold_tokens > pool.max_model_len:
                path = ("models", index, "pools", name, "threshold_tokens")
                message = f"must be at most {pool.max_model_len}, the pool's max_model_len; got {pool.threshold_tokens}"
                yield Problem(path, message)


def _promises(found: Found) -> Iterator[Problem]:
    """Refused is what no mix of requests could have: then a promise is broken whatever the tenants send.

    Not refused, only warned about, is what one pool alone could not honour, such as all bases at once with long
    requests: the long pool would have to be as large as the whole fleet.
    """
    for index, part in found.models.items():
        own = [item for item in found.entitlements.values() if item.model == part.name]
        pools = converted_model(part).pools
        for unit in UNITS:
            promised = Promised.sum_of(unit, ((item.service_class, getattr(item, unit)) for item in own))
            if promised.total > promised.honoured_by(pools):
                reserved = [item for item in own if item.service_class.promised]
                yield Problem(("models", index), _over_committed(promised, pools, reserved))


def _over_committed(promised: Promised, pools: tuple[Pool, ...], reserved: Iterable[EntitlementPart]) -> str:
    unit = promised.unit
    who = ", ".join(f"{item.name} {getattr(item, unit)}" for item in reserved)
    honoured, capacity = promised.honoured_by(pools), sum(getattr(pool.capacity, unit) for pool in pools)
    but = f"its pools have {capacity}"
    if honoured < capacity:
        but = f"its pools can honour {honoured}, as each keeps the {promised.dedicated} of dedicated entitlements free"
    servers = " or ".join(
        f"{promised.servers_for(pool, pools)} servers in pool {pool.name} (now {len(pool.endpoints)})" for pool in pools
    )
    return (
        f"is over-committed: {promised.total} {unit} are promised ({who}), but {but}; "
        f"it needs {servers}, or promises of at most {honoured}"
    )


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
