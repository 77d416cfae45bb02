"""What an access-log entry says of the tokens used, and what becomes of the usage event that nobody asked for."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.metadata import CACHED_TOKENS, COMPLETION_TOKENS, PROMPT_TOKENS, USAGE_NAMESPACE
from tests.envoy.conftest import Stack

SSE = "text/event-stream"
JSON = "application/json"
ALL = {PROMPT_TOKENS: 11, COMPLETION_TOKENS: 5, CACHED_TOKENS: 3}
CHAT_USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}
RESPONSES_USAGE = {"input_tokens": 11, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 3}}


def event(data: object, name: str = "") -> str:
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"


CHUNK = event({"choices": [{"delta": {"content": 'say "usage": {"prompt_tokens": 99}'}}]})
DONE = "data: [DONE]\n\n"

ANSWERS: dict[str, tuple[str, list[str], dict[str, int]]] = {
    "chat": (JSON, [json.dumps({"choices": [], "usage": CHAT_USAGE})], ALL),
    "chat with charset": (f"{JSON}; charset=utf-8", [json.dumps({"usage": CHAT_USAGE})], ALL),
    "chat without space before charset": (f"{JSON};charset=UTF-8", [json.dumps({"usage": CHAT_USAGE})], ALL),
    "details of null": (
        JSON,
        [json.dumps({"usage": CHAT_USAGE | {"prompt_tokens_details": None}})],
        {PROMPT_TOKENS: 11, COMPLETION_TOKENS: 5},
    ),
    "embeddings": (JSON, [json.dumps({"usage": {"prompt_tokens": 11, "total_tokens": 11}})], {PROMPT_TOKENS: 11}),
    "chat stream": (SSE, [CHUNK, event({"choices": [], "usage": CHAT_USAGE}), DONE], ALL),
    "chat stream with charset": (f"{SSE}; charset=utf-8", [event({"usage": CHAT_USAGE}), DONE], ALL),
    "chat stream, usage in every chunk": (
        SSE,
        [
            event({"usage": None}),
            event({"usage": {"prompt_tokens": 11, "completion_tokens": 1}}),
            CHUNK,
            event({"choices": [], "usage": CHAT_USAGE}),
            DONE,
        ],
        ALL,
    ),
    "stream cut into small pieces": (SSE, list(CHUNK + event({"usage": CHAT_USAGE}) + DONE), ALL),
    "stream without usage": (SSE, [CHUNK, DONE], {}),
    "responses": (JSON, [json.dumps({"object": "response", "usage": RESPONSES_USAGE})], ALL),
    "responses stream": (
        SSE,
        [
            event({"type": "response.created", "response": {"usage": None}}, "response.created"),
            event({"type": "response.completed", "response": {"usage": RESPONSES_USAGE}}, "response.completed"),
        ],
        ALL,
    ),
    "messages": (
        JSON,
        [json.dumps({"type": "message", "usage": {"input_tokens": 11, "output_tokens": 5}})],
        {PROMPT_TOKENS: 11, COMPLETION_TOKENS: 5},
    ),
    "messages stream": (
        SSE,
        [
            event({"message": {"usage": {"input_tokens": 11, "output_tokens": 1}}}, "message_start"),
            event({"type": "content_block_delta", "delta": {"text": "hi"}}, "content_block_delta"),
            event({"type": "message_delta", "usage": {"output_tokens": 5}}, "message_delta"),
            event({"type": "message_stop"}, "message_stop"),
        ],
        {PROMPT_TOKENS: 11, COMPLETION_TOKENS: 5},
    ),
    "an error's message is text": (JSON, [json.dumps({"message": "no", "response": 1})], {}),
    "not JSON": (JSON, ["<html>"], {}),
    "no body": (JSON, [], {}),
}


async def answer(stack: Stack, content_type: str, chunks: list[str], **verdict: Any) -> tuple[bytes, dict[str, Any]]:
    """What the client gets, and the usage in the entry."""
    ticket = uuid.uuid4().hex
    asked = {"content_type": content_type, "chunks": chunks, "verdict": {"ticket": ticket, **verdict}}
    async with stack.envoy.client.post(f"{stack.envoy.url}/v1/chat/completions", json=asked) as reply:
        body = await reply.read()
    entry = await stack.seen.entry(ticket)
    return body, dict(entry.common_properties.metadata.filter_metadata[USAGE_NAMESPACE])


@pytest.mark.parametrize(("content_type", "chunks", "usage"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_usage_is_in_the_entry_and_the_answer_unchanged(
    stack: Stack, content_type: str, chunks: list[str], usage: dict[str, int]
) -> None:
    body, seen = await answer(stack, content_type, chunks)
    assert body.decode() == "".join(chunks)
    assert seen == usage


USAGE_EVENT = event({"choices": [], "usage": CHAT_USAGE})
TIGHT_USAGE_EVENT = 'data: {"id":"a","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5}}\n\n'
SPACED_USAGE_EVENT = 'data: {"usage" : {"prompt_tokens": 11}, "choices" : [ ]}\n\n'
LAST_CHUNK = event({"choices": [{"delta": {}}], "usage": CHAT_USAGE})
ESCAPED = event({"choices": [{"delta": {"content": '{"choices":[],"usage":{}}'}}]})
NULL_USAGE = event({"choices": [], "usage": None})
KEPT = (CHUNK, DONE, LAST_CHUNK, ESCAPED, NULL_USAGE, ": comment\n\n", event({"error": {"message": "no"}}))
STRIPPED = (USAGE_EVENT, TIGHT_USAGE_EVENT, SPACED_USAGE_EVENT)
CRLF = str.maketrans({"\n": "\r\n"})


async def test_usage_is_stripped_only_where_the_verdict_says_so(stack: Stack) -> None:
    kept, usage = await answer(stack, SSE, [CHUNK, USAGE_EVENT, DONE])
    assert kept.decode() == CHUNK + USAGE_EVENT + DONE
    stripped, usage_of_stripped = await answer(stack, SSE, [CHUNK, USAGE_EVENT, DONE], strip_usage=True)
    assert stripped.decode() == CHUNK + DONE
    assert usage == usage_of_stripped == ALL


async def test_an_answer_that_is_not_a_stream_keeps_its_usage(stack: Stack) -> None:
    text = json.dumps({"choices": [], "usage": CHAT_USAGE})
    body, _ = await answer(stack, JSON, [text], strip_usage=True)
    assert body.decode() == text


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(st.sampled_from(KEPT + STRIPPED), max_size=6),
    crlf=st.booleans(),
    end=st.sampled_from(["", "data: [DO", "data: [DONE]", "data: [DONE]\n", CHUNK.rstrip()]),
    sizes=st.lists(st.integers(1, 200), max_size=30),
)
async def test_stripping_loses_usage_events_and_nothing_else(
    stack: Stack, events: list[str], crlf: bool, end: str, sizes: list[int]
) -> None:
    text, expected = "".join(events) + end, "".join(each for each in events if each not in STRIPPED) + end
    if crlf:
        text, expected = text.translate(CRLF), expected.translate(CRLF)
    body, _ = await answer(stack, SSE, cut(text, sizes), strip_usage=True)
    assert body.decode() == expected


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(text[position : position + size])
        position += size
    return [piece for piece in [*pieces, text[position:]] if piece]


@pytest.mark.parametrize("size", [65_000, 66_000, 150_000])
@pytest.mark.parametrize("piece", [10_000, 65_536, 1_000_000])
async def test_an_event_too_long_to_hold_passes(stack: Stack, size: int, piece: int) -> None:
    long = event({"choices": [{"delta": {"content": "x" * size}}]})
    body, _ = await answer(stack, SSE, cut(CHUNK + long + USAGE_EVENT + DONE, [piece] * 20), strip_usage=True)
    assert body.decode() == CHUNK + long + DONE


async def test_a_long_event_is_not_held_until_it_is_complete(stack: Stack) -> None:
    first = "data: " + "x" * 100_000
    asked = {"content_type": SSE, "pause": True, "first": first, "verdict": {"strip_usage": True}}
    async with stack.envoy.client.post(f"{stack.envoy.url}/v1/chat/completions", json=asked) as reply:
        assert await reply.content.readexactly(65_536) == first[:65_536].encode()
        stack.short.go_on.set()
        assert await reply.read() == (first[65_536:] + "last").encode()
    stack.short.go_on.clear()
