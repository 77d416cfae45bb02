"""YAML to plain values that remember their lines.

Reports duplicate keys and foreign tags, and bounds depth and size: aliases can make a small file endless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from extproc.config.mistakes import KeyPath, Problem

MAX_DEPTH = 32  # the schema needs 6
MAX_VALUES = 200_000  # after aliases are expanded

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_TOO_DEEP = f"is nested more than {MAX_DEPTH} deep, or contains itself through an alias; write the values out"


@dataclass(frozen=True, slots=True)
class Document:
    data: object
    lines: Mapping[KeyPath, int]  # of each key and list item, from 1
    problems: tuple[Problem, ...]

    def line(self, path: KeyPath) -> int:
        """The line of the key, or of the nearest thing around it that the file does hold."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def read(text: str) -> Document | Problem:
    """A Problem where the text as a whole cannot be understood."""
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH
    yaml.composer.warn_double_anchors = False  # allowed by YAML 1.2: the later anchor counts
    walk = _Walk()
    try:
        root = yaml.compose(text)
        data = None if root is None else walk.value(root, (), 0)
    except MaxDepthExceededError as error:
        return Problem((), _TOO_DEEP, _line(error))
    except _EndlessError as error:
        return error.problem
    except YAMLError as error:
        return Problem((), f"is not valid YAML: {_complaint(error)}", _line(error))
    except (ValueError, RecursionError) as error:  # ruamel lets these through, e.g. for the escape "\U00110000"
        return Problem((), f"is not valid YAML: {error}", 1)
    return Document(data, walk.lines, tuple(walk.problems))


def _complaint(error: YAMLError) -> str:
    if not isinstance(error, MarkedYAMLError):  # a character that YAML forbids; its first line says which
        return str(error).partition("\n")[0]
    complaint = f"{error.context}, {error.problem}" if error.context else str(error.problem)
    begun = error.context_mark
    if begun is not None and begun.line != error.problem_mark.line:
        complaint += f"; it begins on line {begun.line + 1}"
    if "'\\t'" in complaint:
        complaint += "; indent with spaces, not tabs"
    return " ".join(complaint.split())


def _line(error: YAMLError) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return 1 if mark is None else int(mark.line) + 1


class _EndlessError(Exception):
    """Raised where a document is too deep or too large to go on reading it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Walk:
    """Turns nodes into values, noting lines and problems on the way."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {(): 1}
        self.problems: list[Problem] = []
        self.values = 0

    def value(self, node: Node, path: KeyPath, depth: int) -> object:
        self.enter(node, path, depth)
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            self.problems.append(Problem(path, f"the tag {node.tag} is not supported; leave it out"))
        if isinstance(node, MappingNode):
            return self.mapping(node, path, depth)
        return [self.item(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]

    def enter(self, node: Node, path: KeyPath, depth: int) -> None:
        self.values += 1
        if depth > MAX_DEPTH:
            raise _EndlessError(Problem(path[:3], _TOO_DEEP, _node_line(node)))
        if self.values > MAX_VALUES:
            message = f"holds more than {MAX_VALUES} values once aliases are expanded"
            raise _EndlessError(Problem(path[:3], message, _node_line(node)))

    def item(self, node: Node, path: KeyPath, depth: int) -> object:
        self.lines.setdefault(path, _node_line(node))
        return self.value(node, path, depth)

    def mapping(self, node: MappingNode, path: KeyPath, depth: int) -> dict[str, object]:
        own = [(key, value) for key, value in node.value if key.tag != _MERGE]
        data: dict[str, object] = {}
        for key, value in own:
            self.entry(data, (key, value), path, depth)
        for key, value in self.merged(node, path, depth + 1):  # `<<: *defaults`: the mapping's own keys win
            if key.value not in data:
                self.entry(data, (key, value), path, depth)
        return data

    def entry(self, data: dict[str, object], pair: tuple[Node, Node], path: KeyPath, depth: int) -> None:
        key, value = pair
        line = _node_line(key)
        if not isinstance(key, ScalarNode):
            self.problems.append(Problem(path, "has a key that is itself a list or mapping; keys are names", line))
            return
        at = (*path, str(key.value))
        if at[-1] in data:
            message = f"is given twice, first on line {self.lines[at]}; keep one"
            self.problems.append(Problem(at, message, line))
            return
        self.lines[at] = line
        data[str(key.value)] = self.value(value, at, depth + 1)

    def merged(self, node: MappingNode, path: KeyPath, depth: int) -> Iterator[tuple[Node, Node]]:
        """The entries that merge keys add, nearest first."""
        for key, value in node.value:
            if key.tag != _MERGE:
                continue
            for origin in value.value if isinstance(value, SequenceNode) else [value]:
                self.enter(origin, path, depth)
                if not isinstance(origin, MappingNode):
                    self.problems.append(Problem(path, "<< takes a mapping, or a list of mappings", _node_line(key)))
                    continue
                yield from (pair for pair in origin.value if pair[0].tag != _MERGE)
                yield from self.merged(origin, path, depth + 1)

    def scalar(self, node: ScalarNode, path: KeyPath) -> object:
        construct = _SCALARS.get(str(node.tag))
        if construct is None:
            self.problems.append(Problem(path, f"the tag {node.tag} is not supported; leave it out"))
            return None
        try:
            return construct(str(node.value))
        except (ValueError, KeyError):
            kind = str(node.tag).removeprefix(_TAG)
            self.problems.append(Problem(path, f"{str(node.value)[:40]!a} is not a valid YAML {kind}"))
            return None


def _node_line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return int(text, 0)  # 0x1f, 0o17


def _decimal(text: str) -> float:
    if text.lower().endswith((".inf", ".nan")):
        text = text.replace(".", "")
    return float(text)


_SCALARS: Mapping[str, Callable[[str], object]] = {
    f"{_TAG}int": _whole,
    f"{_TAG}float": _decimal,
    f"{_TAG}bool": lambda text: {"true": True, "false": False}[text.lower()],
    f"{_TAG}null": lambda _: None,
    f"{_TAG}str": str,
    f"{_TAG}timestamp": str,  # nothing here is a date; a name that looks like one is still a name
    f"{_TAG}value": str,
    _MERGE: str,
}
