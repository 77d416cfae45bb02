"""Models of AWS's services, as botocore ships them: real JSON, real descriptions, real tool schemas."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from extproc.bench.packages import folder

SERVICES = ("sqs", "sns", "dynamodb", "lambda", "s3", "iam", "kms", "logs", "events", "ssm", "ecr", "athena", "batch")
DEEPEST = 4  # levels of a tool's parameters
_TAG = re.compile(r"<[^>]+>")
_SPACES = re.compile(r"\s+")
_TYPES = {"structure": "object", "map": "object", "list": "array", "integer": "integer", "long": "integer",
          "boolean": "boolean", "double": "number", "float": "number"}  # fmt: skip
_STYLES: tuple[dict[str, Any], ...] = ({"separators": (",", ":")}, {}, {"indent": 2}, {"indent": 4})


@cache
def _model(service: str) -> dict[str, Any]:
    [newest] = sorted(_root(service))[-1:]
    with gzip.open(newest / "service-2.json.gz") as file:
        found: dict[str, Any] = json.load(file)
        return found


def _root(service: str) -> list[Any]:
    return [path for path in folder("botocore", f"botocore/data/{service}").iterdir() if path.is_dir()]


def documentation() -> tuple[str, ...]:
    """What the operations of each service say of themselves, without the markup."""
    return tuple("\n\n".join(_described(_model(service))) for service in SERVICES)


def _described(model: dict[str, Any]) -> Iterator[str]:
    for operation in model["operations"].values():
        yield _plain(operation.get("documentation", ""))


def _plain(marked: str) -> str:
    return _SPACES.sub(" ", _TAG.sub("", marked)).strip()


def examples() -> tuple[str, ...]:
    """Requests and answers, as the services' own examples show them; every service in a style of its own."""
    found: list[str] = []
    for path in sorted(folder("botocore", "botocore/data").glob("*/*/examples-1.json")):
        known = json.loads(path.read_text(encoding="utf-8")).get("examples", {})
        style = _STYLES[len(found) % len(_STYLES)]
        found.append("\n".join(json.dumps(example, **style) for case in known.values() for example in case))
    return tuple(text for text in found if text)


def models() -> tuple[str, ...]:
    """Shapes and operations, one JSON document each, in one style a service."""
    return tuple(
        "\n".join(
            json.dumps({name: part}, **_STYLES[number % len(_STYLES)])
            for name, part in _model(service)["shapes"].items()
        )
        for number, service in enumerate(SERVICES)
    )


@cache
def tools() -> tuple[dict[str, Any], ...]:
    """Operations as the tools of a chat: name, description, JSON schema of the parameters."""
    return tuple(tool for service in SERVICES for tool in _tools(service))


def _tools(service: str) -> Iterator[dict[str, Any]]:
    model = _model(service)
    for name, operation in model["operations"].items():
        shape = operation.get("input", {}).get("shape")
        parameters = _schema(model["shapes"], shape, DEEPEST) if shape else {"type": "object", "properties": {}}
        function = {"name": f"{service}_{name}"[:64], "description": _plain(operation.get("documentation", ""))[:1000]}
        yield {"type": "function", "function": {**function, "parameters": parameters}}


def _schema(shapes: dict[str, Any], name: str, levels: int) -> dict[str, Any]:
    shape = shapes[name]
    found: dict[str, Any] = {"type": _TYPES.get(shape["type"], "string")}
    if shape.get("documentation"):
        found["description"] = _plain(shape["documentation"])[:300]
    if "enum" in shape:
        found["enum"] = shape["enum"]
    if levels and shape["type"] == "structure":
        found["properties"] = {
            key: _schema(shapes, member["shape"], levels - 1) for key, member in shape["members"].items()
        }
        found["required"] = shape.get("required", [])
    if levels and shape["type"] == "list":
        found["items"] = _schema(shapes, shape["member"]["shape"], levels - 1)
    return found
