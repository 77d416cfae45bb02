"""docs/configuration.md, made from the schema: `python -m extproc.config.reference > docs/configuration.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from extproc.config.schema import Schema, json_schema, resolve

_HEAD = """\
# Configuration

One file, usually `tokenpool.yaml`. It is strict: an unknown key, a value of another type, a duplicate name or a
promise that the servers cannot keep is a mistake, and all mistakes are reported at once with file, line and key.
`tokenpool check FILE` reports them without starting anything. `/tokenpool.yaml` in this repository is an example.

YAML anchors, aliases and merge keys (`<<: *name`) may be used to avoid repetition. An optional key whose default is
*none* may also be left empty.

This page is made from the schema by `python -m extproc.config.reference`; do not edit it.
"""

_TAIL = """
## What must also hold

- Names and aliases of models, and names of entitlements, are unique. An endpoint stands in one pool only; `sim://` may
  be repeated.
- A key names one entitlement of a model. The same key may serve several models.
- A cap under `burst` is at least the entitlement's own figure.
- In each of the three units, a model's dedicated and guaranteed entitlements add up to no more than its pools can
  honour: what they have, and for guaranteed ones only what each pool has beside all dedicated bases.
- `routing.threshold_tokens` is at most the `max_model_len` of the longest pool, a pool's own at most that pool's.

These are only warned about: elastic promises beyond the capacity, promises that one pool alone cannot honour (long
requests have only the long pool), a class that a pool will never serve since the bases of others fill it, a pool that
no request prefers, a server whose `kv_tokens` cannot hold a request of its `max_model_len`, an entitlement too small
for one request of 1,024 tokens, and one that nobody can use.
"""


def reference() -> str:
    """Every key of the file with its type, default and meaning, as Markdown."""
    root = json_schema()
    sections = [_section(title, node, root) for title, node in _mappings("", root, root)]
    return _HEAD + "".join(sections) + _TAIL


def _mappings(path: str, node: Schema, root: Schema) -> Iterator[tuple[str, Schema]]:
    """Every mapping with fixed keys that the file can hold, by where it stands."""
    node, path = _inside(node, path, root)
    if "properties" not in node:
        return
    yield path, node
    for key, child in node["properties"].items():
        yield from _mappings(f"{path}.{key}" if path else key, child, root)


def _inside(node: Schema, path: str, root: Schema) -> tuple[Schema, str]:
    """What a list or a mapping of names holds, or the node itself."""
    node = resolve(node, root)
    if node.get("type") == "array":
        return resolve(node["items"], root), f"{path}[]"
    if isinstance(node.get("additionalProperties"), dict):
        return resolve(node["additionalProperties"], root), f"{path}.NAME"
    return node, path


def _section(path: str, node: Schema, root: Schema) -> str:
    title = f"`{path}`" if path else "The file"
    lines = [f"\n## {title}\n", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, child in node["properties"].items():
        default = _default(child, root) if key not in node.get("required", ()) else "required"
        lines.append(f"| `{key}` | {_type(child, root)} | {default} | {child['description']} |")
    return "\n".join(lines) + "\n"


def _default(child: Schema, root: Schema) -> str:
    default = child["default"]
    if default is None:
        return "none"
    if "properties" in resolve(child, root):
        return "its defaults"
    return f"`{json.dumps(default).strip(chr(34))}`"


def _type(child: Schema, root: Schema) -> str:
    node = resolve(child, root)
    if "enum" in node:
        return ", ".join(f"`{name}`" for name in node["enum"])
    if node["type"] == "array":
        return f"list of {_type(node['items'], root)}"
    if node["type"] == "object":
        inner, _ = _inside(node, "", root)
        return "mapping" if inner is node else "mapping by name"
    return _TYPES[node["type"]] + _bounds(node)


_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}


def _bounds(node: Schema) -> str:
    if "maximum" not in node:
        return ""
    if "exclusiveMinimum" in node:
        return f", above {node['exclusiveMinimum']:,.0f}, at most {node['maximum']:,.0f}"
    return f", {node['minimum']:,.0f} to {node['maximum']:,.0f}"


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - its output is the page
