"""Chat requests made of real texts: the bodies that clients would send, and what a model would read of them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from extproc.bench import services, texts
from extproc.bench.texts import Source

MEDIAN_BYTES, SPREAD = 4_000, 1.5  # of a log-normal distribution of sizes
FEWEST_BYTES, MOST_BYTES = 200, 160_000
MAX_TOKENS = (128, 256, 512, 1024)
MOST_TURNS = 60
_LONG_ANSWERS = 0.3  # of the assistant's turns in a chat
_QUESTIONS = (
    "Summarise this.",
    "What does this mean?",
    "Find the mistakes in it.",
    "Explain it to a beginner.",
    "And now?",
)
_ASSISTANT = "You are a helpful assistant."

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `body` goes to the sidecar; `pieces` between special tokens are what the tokenizer splits."""

    kind: str
    body: bytes
    pieces: tuple[str, ...]
    specials: int  # tokens beside the pieces
    output: int  # tokens it may generate


Maker = Callable[[random.Random, int], tuple[list[Message], list[dict[str, Any]]]]


def make(kind: str, count: int, seed: int) -> list[Ask]:
    """`count` requests of one kind; the same for the same seed and packages, but for logs, which are written anew."""
    draw, maker = random.Random(f"{kind} {seed}"), _makers()[kind]  # noqa: S311 - a benchmark's dice
    return [_ask(kind, draw, *maker(draw, _size(draw))) for _ in range(count)]


def of_size(kind: str, size: int, seed: int) -> Ask:
    """One request of about so many bytes."""
    draw = random.Random(f"{kind} {seed}")  # noqa: S311 - a benchmark's dice
    return _ask(kind, draw, *_makers()[kind](draw, size))


def kinds() -> tuple[str, ...]:
    return tuple(_makers())


@cache
def _makers() -> dict[str, Maker]:
    plain = {
        "english": texts.english, "code": texts.code, "json": texts.data, "logs": texts.written_logs,
        "chinese": texts.chinese, "japanese": texts.japanese, "korean": texts.korean,
        "arabic": texts.arabic, "hindi": texts.hindi, "russian": texts.russian,
    }  # fmt: skip
    makers: dict[str, Maker] = {kind: _documents(source()) for kind, source in plain.items()}
    every = [source() for source in plain.values()]
    return {**makers, "mixed": _mixed(every), "tools": _tools, "chats": _chats}


def _size(draw: random.Random) -> int:
    return int(min(max(draw.lognormvariate(math.log(MEDIAN_BYTES), SPREAD), FEWEST_BYTES), MOST_BYTES))


def _documents(sources: Sequence[Source]) -> Maker:
    """A question on a piece of one source."""

    def made(draw: random.Random, size: int) -> tuple[list[Message], list[dict[str, Any]]]:
        text = _piece(draw, draw.choice(sources), size)
        content = text if draw.random() < 0.5 else f"{draw.choice(_QUESTIONS)}\n\n{text}"  # noqa: PLR2004 - a coin
        return [*_system(draw), _said("user", content)], []

    return made


def _mixed(kinds: Sequence[Sequence[Source]]) -> Maker:
    """Pieces of two to four kinds in one request."""

    def made(draw: random.Random, size: int) -> tuple[list[Message], list[dict[str, Any]]]:
        chosen = draw.sample(kinds, draw.randint(2, 4))
        pieces = [_piece(draw, draw.choice(sources), size // len(chosen)) for sources in chosen]
        return [*_system(draw), _said("user", "\n\n".join((draw.choice(_QUESTIONS), *pieces)))], []

    return made


def _tools(draw: random.Random, size: int) -> tuple[list[Message], list[dict[str, Any]]]:
    known, given = services.tools(), []
    start = draw.randrange(len(known))
    for number in range(len(known)):
        given.append(known[(start + number) % len(known)])
        size -= len(json.dumps(given[-1]))
        if size <= 0:
            break
    [asked, *_] = draw.choice(texts.dialogues())
    return [*_system(draw), _said("user", asked)], given


def _chats(draw: random.Random, size: int) -> tuple[list[Message], list[dict[str, Any]]]:
    """Turns of dialogues; some of the answers are pages of prose or code."""
    said, long_answers = _system(draw), (*texts.english(), *texts.code())
    turns = _turns(draw)
    while size > 0 and len(said) < MOST_TURNS:
        role = "assistant" if said and said[-1]["role"] == "user" else "user"
        text = next(turns)
        if role == "assistant" and draw.random() < _LONG_ANSWERS:
            text = _piece(draw, draw.choice(long_answers), min(size, draw.randint(200, 4000)))
        said.append(_said(role, text))
        size -= len(text)
    return said, []


def _turns(draw: random.Random) -> Iterator[str]:
    known = texts.dialogues()
    while True:
        yield from draw.choice(known)


def _piece(draw: random.Random, source: Source, size: int) -> str:
    """About so many bytes of text from somewhere in a source, cut between lines where there are any."""
    at = draw.randrange(len(source))
    start = draw.randrange(max(1, len(source[at]) - size // 2))
    text, taken = source[at], []
    text = text[text.find("\n", start, start + 200) + 1 or start :]
    while size > 0:
        taken.append(_first(text, size))
        size -= len(taken[-1].encode()) + 1
        at = (at + 1) % len(source)
        text = source[at]
    return "\n".join(taken)


def _first(text: str, size: int) -> str:
    return text[:size].encode()[:size].decode(errors="ignore")


def _system(draw: random.Random) -> list[Message]:
    return [_said("system", _ASSISTANT)] if draw.random() < 0.5 else []  # noqa: PLR2004 - a coin


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _ask(kind: str, draw: random.Random, messages: list[Message], tools: list[dict[str, Any]]) -> Ask:
    output = draw.choice(MAX_TOKENS)
    body = {"model": "m", "messages": messages, "max_tokens": output, **({"tools": tools} if tools else {})}
    pieces = [f"{each['role']}\n{each['content']}" for each in _with_tools(messages, tools)]
    encoded = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    # <|im_start|>ROLE\nCONTENT<|im_end|>\n for each, then <|im_start|>assistant\n: the breaks are tokens of their own
    return Ask(kind, encoded, (*pieces, "assistant\n"), 3 * len(pieces) + 1, output)


_TOOLS_BEFORE = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>"""
_TOOLS_AFTER = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


def _with_tools(messages: list[Message], tools: list[dict[str, Any]]) -> list[Message]:
    """As Qwen's and Hermes' templates show tools: in the system message, each as JSON on a line."""
    if not tools:
        return messages
    shown = "\n".join((_TOOLS_BEFORE, *(json.dumps(tool, ensure_ascii=False) for tool in tools))) + _TOOLS_AFTER
    if messages[0]["role"] == "system":
        return [_said("system", f"{messages[0]['content']}\n\n{shown}"), *messages[1:]]
    return [_said("system", shown), *messages]
