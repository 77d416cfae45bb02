"""Plain values against the schema: the parts that fit it, and a problem for everything that does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from extproc.config.mistakes import KeyPath, Problem
from extproc.config.schema import EntitlementPart, FilePart, ModelPart, Part, Schema, json_schema, resolve

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

P = TypeVar("P", bound=Part)

_SECRET = ("keys", "redis")  # never repeated: a plain key or a password may stand there by mistake
_ECHO_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Valid:
    """The parts of the file that fit the schema; models and entitlements by their index in the file."""

    file: FilePart | None = None
    models: Mapping[int, ModelPart] = field(default_factory=dict)
    entitlements: Mapping[int, EntitlementPart] = field(default_factory=dict)
    model_names: frozenset[str] = frozenset()  # of the models with mistakes, too


def validate(data: object) -> tuple[Valid, list[Problem]]:
    try:
        file = FilePart.model_validate(data)
    except ValidationError as error:
        root = json_schema()
        return _survivors(data), [_problem(details, root) for details in error.errors(include_url=False)]
    models = dict(enumerate(file.models))
    names = frozenset(model.name for model in file.models)
    return Valid(file, models, dict(enumerate(file.entitlements)), names), []


def _survivors(data: object) -> Valid:
    mapping = data if isinstance(data, dict) else {}
    names = frozenset(
        item["name"]
        for item in _items(mapping, "models")
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    )
    models = _fitting(_items(mapping, "models"), ModelPart)
    return Valid(None, models, _fitting(_items(mapping, "entitlements"), EntitlementPart), names)


def _items(mapping: Mapping[str, object], key: str) -> list[object]:
    items = mapping.get(key)
    return items if isinstance(items, list) else []


def _fitting(items: list[object], part: type[P]) -> dict[int, P]:
    result = {}
    for index, item in enumerate(items):
        try:
            result[index] = part.model_validate(item)
        except ValidationError:
            continue  # reported by the validation of the whole file
    return result


def _problem(details: ErrorDetails, root: Schema) -> Problem:
    path: KeyPath = tuple(step for step in details["loc"] if step != "[key]")
    if details["type"] == "extra_forbidden":
        return Problem(path, _unknown_key(path, root))
    return Problem(path, _message(details, path, root))


def _message(details: ErrorDetails, path: KeyPath, root: Schema) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return f"is missing: {_described(path, root)}"
    if kind == "value_error":
        value = details["input"]
        return str(context["error"]) + ("" if isinstance(value, dict) else _got(value, path))
    if kind == "too_short":
        return "must not be empty"
    if kind == "enum":
        names = ", ".join(_schema_at(path, root)["enum"])
        return f"must be one of {names}{_got(details['input'], path)}"
    wanted = _WANTED.get(kind, details["msg"])
    return f"must be {wanted.format_map(context)}{_got(details['input'], path)}"


_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text (put quotes around it)",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of keys to values",
    "greater_than_equal": "at least {ge:.0f}",
    "less_than_equal": "at most {le:.0f}",
}


def _got(value: object, path: KeyPath) -> str:
    if any(step in _SECRET for step in path):
        return ""
    if value is None:
        return "; got nothing"
    if isinstance(value, (dict, list)):
        return f"; got a {'mapping' if isinstance(value, dict) else 'list'}"
    if isinstance(value, bool):
        return f"; got {str(value).lower()}"
    # Enough of it to recognise; an endless number would be costly to print, too.
    if isinstance(value, int) and value.bit_length() > _ECHO_LENGTH * 3:
        return "; got a far larger number"
    text = ascii(value)
    return f"; got {text if len(text) <= _ECHO_LENGTH else text[:_ECHO_LENGTH] + '...'}"


def _unknown_key(path: KeyPath, root: Schema) -> str:
    known = list(_schema_at(path[:-1], root).get("properties", {}))
    near = get_close_matches(str(path[-1]), known, n=1)
    if near:
        return f"is not a known key; did you mean {near[0]}?"
    return f"is not a known key; the keys here are {', '.join(known)}"


def _described(path: KeyPath, root: Schema) -> str:
    description = str(_schema_at(path[:-1], root)["properties"][path[-1]]["description"])
    return description[0].lower() + description[1:].split(". ", maxsplit=1)[0].rstrip(".")


def _schema_at(path: KeyPath, root: Schema) -> Schema:
    node = root
    for step in path:
        node = resolve(node, root)
        if isinstance(step, int):
            node = node["items"]
        else:
            node = node["properties"][step] if "properties" in node else node["additionalProperties"]
    return resolve(node, root)
