"""Answers in the shapes of the four generating APIs, whole or as server-sent events, and errors, models, embeddings.

JSON is compact and without spaces, as vLLM's is: filters that look for `"choices":[]` must meet the real thing.
"""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from extproc.core.facts import Api
from extproc.core.refusal import ErrorShape
from extproc.sim.asks import Ask, Problem

Json = dict[str, Any]

EMBEDDING_DIMENSIONS = 64
_ERROR_TYPES = {400: "BadRequestError", 404: "NotFoundError"}
_ANTHROPIC_ERROR_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What every event of one answer repeats."""

    request_id: str
    created: int  # Unix time, seconds
    model: str
    ask: Ask


@dataclass(frozen=True, slots=True)
class Choice:
    """What one sequence has generated so far."""

    index: int
    text: str
    tokens: int
    finish_reason: str | None = None  # None while it runs


class Writer(Protocol):
    """One API's way to write an answer. Streams: `opening`, then `token` for each, then `closing`."""

    def whole(self, choices: Sequence[Choice]) -> bytes: ...

    def opening(self, choices: int) -> bytes: ...

    def token(self, text: str, so_far: Choice) -> bytes:
        """One token; `so_far` includes it."""

    def closing(self, choices: Sequence[Choice]) -> bytes: ...


def writer(api: Api, answer: Answer) -> Writer:
    match api:
        case Api.CHAT:
            return ChatWriter(answer)
        case Api.COMPLETIONS:
            return CompletionsWriter(answer)
        case Api.RESPONSES:
            return ResponsesWriter(answer)
        case Api.MESSAGES:
            return MessagesWriter(answer)
        case Api.EMBEDDINGS:
            raise ValueError("embeddings are not generated")


def encode(value: Json) -> bytes:
    return msgspec.json.encode(value)


def problem(what: Problem, shape: ErrorShape) -> bytes:
    if shape is ErrorShape.ANTHROPIC:
        kind = _ANTHROPIC_ERROR_TYPES.get(what.status, "api_error")
        return encode({"type": "error", "error": {"type": kind, "message": what.message}})
    kind = _ERROR_TYPES.get(what.status, "InternalServerError")
    return encode({"error": {"message": what.message, "type": kind, "param": what.param, "code": what.status}})


def models(names: Sequence[str], created: int, max_model_len: int) -> bytes:
    entries = [
        {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": names[0],
            "parent": None,
            "max_model_len": max_model_len,
        }
        for name in names
    ]
    return encode({"object": "list", "data": entries})


def embeddings(answer: Answer) -> bytes:
    """Vectors that depend on the prompt's length and place only: enough for whoever counts tokens."""
    data = [
        {"index": index, "object": "embedding", "embedding": _embedding(tokens + index, answer.ask)}
        for index, tokens in enumerate(answer.ask.prompts)
    ]
    body = {"id": f"embd-{answer.request_id}", "object": "list", "created": answer.created, "model": answer.model}
    return encode({**body, "data": data, "usage": _usage(answer.ask.prompt_tokens, 0)})


def _embedding(seed: int, ask: Ask) -> list[float] | str:
    source = random.Random(seed)  # noqa: S311 - a vector for a simulation
    vector = [source.uniform(-1.0, 1.0) for _ in range(EMBEDDING_DIMENSIONS)]
    if not ask.base64:
        return vector
    return base64.b64encode(struct.pack(f"<{EMBEDDING_DIMENSIONS}f", *vector)).decode()


def _usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": None,
    }


def _event(value: Json) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _named_event(value: Json) -> bytes:
    """Server-sent events of the newer APIs carry their type as their name, too."""
    return b"event: " + str(value["type"]).encode() + b"\n" + _event(value)


class _OpenAIStream:
    """What chat and text completions share."""

    _PREFIX = ""
    _CHUNK = ""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def closing(self, choices: Sequence[Choice]) -> bytes:
        usage = b""
        if self._answer.ask.usage:
            usage = _event({**self._head(self._CHUNK), "choices": [], "usage": self._total(choices)})
        return usage + b"data: [DONE]\n\n"

    def _chunk(self, choice: Json, so_far: Choice) -> bytes:
        chunk = {**self._head(self._CHUNK), "choices": [choice]}
        if self._answer.ask.continuous_usage:
            chunk["usage"] = _usage(self._answer.ask.prompt_tokens, so_far.tokens)
        return _event(chunk)

    def _head(self, kind: str) -> Json:
        answer = self._answer
        return {
            "id": f"{self._PREFIX}-{answer.request_id}",
            "object": kind,
            "created": answer.created,
            "model": answer.model,
        }

    def _total(self, choices: Sequence[Choice]) -> Json:
        return _usage(self._answer.ask.prompt_tokens, sum(choice.tokens for choice in choices))


class ChatWriter(_OpenAIStream):
    _PREFIX = "chatcmpl"
    _CHUNK = "chat.completion.chunk"

    def whole(self, choices: Sequence[Choice]) -> bytes:
        written: list[Json] = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None, "tool_calls": []},
                "logprobs": None,
                "finish_reason": choice.finish_reason,
                "stop_reason": None,
            }
            for choice in choices
        ]
        return encode({**self._head("chat.completion"), "choices": written, "usage": self._total(choices)})

    def opening(self, choices: int) -> bytes:
        delta = {"role": "assistant", "content": ""}
        return b"".join(
            self._chunk(
                {"index": index, "delta": delta, "logprobs": None, "finish_reason": None},
                Choice(index, "", 0),
            )
            for index in range(choices)
        )

    def token(self, text: str, so_far: Choice) -> bytes:
        reason = so_far.finish_reason
        choice: Json = {"index": so_far.index, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}
        if reason is not None:
            choice["stop_reason"] = None
        return self._chunk(choice, so_far)


class CompletionsWriter(_OpenAIStream):
    _PREFIX = "cmpl"
    _CHUNK = "text_completion"

    def whole(self, choices: Sequence[Choice]) -> bytes:
        written = [self._choice(choice.text, choice) for choice in choices]
        return encode({**self._head(self._CHUNK), "choices": written, "usage": self._total(choices)})

    def opening(self, choices: int) -> bytes:
        del choices
        return b""

    def token(self, text: str, so_far: Choice) -> bytes:
        return self._chunk(self._choice(text, so_far), so_far)

    @staticmethod
    def _choice(text: str, so_far: Choice) -> Json:
        return {
            "index": so_far.index,
            "text": text,
            "logprobs": None,
            "finish_reason": so_far.finish_reason,
            "stop_reason": None,
        }


class ResponsesWriter:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._item_id = f"msg_{answer.request_id}"
        self._sequence = 0

    def whole(self, choices: Sequence[Choice]) -> bytes:
        return encode(self._response(choices[0]))

    def opening(self, choices: int) -> bytes:
        del choices
        started = self._response(None)
        item = {**self._item(None), "content": []}
        return b"".join(
            (
                self._named("response.created", response=started),
                self._named("response.in_progress", response=started),
                self._named("response.output_item.added", output_index=0, item=item),
                self._part("response.content_part.added", part=self._text("")),
            ),
        )

    def token(self, text: str, so_far: Choice) -> bytes:
        del so_far
        return self._part("response.output_text.delta", delta=text, logprobs=[])

    def closing(self, choices: Sequence[Choice]) -> bytes:
        choice = choices[0]
        return b"".join(
            (
                self._part("response.output_text.done", text=choice.text, logprobs=[]),
                self._part("response.content_part.done", part=self._text(choice.text)),
                self._named("response.output_item.done", output_index=0, item=self._item(choice)),
                self._named("response.completed", response=self._response(choice)),
            ),
        )

    def _part(self, kind: str, **fields: object) -> bytes:
        return self._named(kind, item_id=self._item_id, output_index=0, content_index=0, **fields)

    def _named(self, kind: str, **fields: object) -> bytes:
        event = _named_event({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return event

    @staticmethod
    def _text(text: str) -> Json:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": None}

    def _item(self, choice: Choice | None) -> Json:
        content = [] if choice is None else [self._text(choice.text)]
        status = "in_progress" if choice is None else "completed"
        return {"id": self._item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def _response(self, choice: Choice | None) -> Json:
        """`choice` is None while it runs."""
        cut = choice is not None and choice.finish_reason == "length"
        ended = "incomplete" if cut else "completed"
        return {
            "id": f"resp_{self._answer.request_id}",
            "created_at": self._answer.created,
            "object": "response",
            "model": self._answer.model,
            "status": "in_progress" if choice is None else ended,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [] if choice is None else [self._item(choice)],
            "usage": None if choice is None else self._usage(choice.tokens),
            "max_output_tokens": self._answer.ask.max_output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }

    def _usage(self, output_tokens: int) -> Json:
        input_tokens = self._answer.ask.prompt_tokens
        return {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input_tokens + output_tokens,
        }


class MessagesWriter:
    _STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}  # noqa: RUF012 - never written

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def whole(self, choices: Sequence[Choice]) -> bytes:
        return encode(self._message(choices[0]))

    def opening(self, choices: int) -> bytes:
        del choices
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return _named_event({"type": "message_start", "message": self._message(None)}) + _named_event(block)

    def token(self, text: str, so_far: Choice) -> bytes:
        del so_far
        delta = {"type": "text_delta", "text": text}
        return _named_event({"type": "content_block_delta", "index": 0, "delta": delta})

    def closing(self, choices: Sequence[Choice]) -> bytes:
        choice = choices[0]
        delta = {"stop_reason": self._stop_reason(choice), "stop_sequence": None}
        return b"".join(
            (
                _named_event({"type": "content_block_stop", "index": 0}),
                _named_event({"type": "message_delta", "delta": delta, "usage": self._usage(choice.tokens)}),
                _named_event({"type": "message_stop"}),
            ),
        )

    def _stop_reason(self, choice: Choice) -> str | None:
        return None if choice.finish_reason is None else self._STOP_REASONS[choice.finish_reason]

    def _usage(self, output_tokens: int) -> Json:
        return {"input_tokens": self._answer.ask.prompt_tokens, "output_tokens": output_tokens}

    def _message(self, choice: Choice | None) -> Json:
        """`choice` is None while it runs."""
        return {
            "id": f"msg_{self._answer.request_id}",
            "type": "message",
            "role": "assistant",
            "content": [] if choice is None else [{"type": "text", "text": choice.text}],
            "model": self._answer.model,
            "stop_reason": None if choice is None else self._stop_reason(choice),
            "stop_sequence": None,
            "usage": self._usage(0 if choice is None else choice.tokens),
        }
