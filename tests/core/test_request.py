"""What `read` takes from the bodies of the five APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.facts import Api, Category, RequestFacts
from extproc.core.reading import VIDEO_IMAGES
from extproc.core.request import api_of, ask_for_usage, read
from tests.core.bodies import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    PNG,
    RESPONSES,
    anthropic,
    chat,
    completion,
    embedding,
    encoded,
    facts_of,
    part,
    response,
    user,
)

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
TOOLS_BYTES = len(json.dumps(TOOLS))


def asks(name: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": name, "arguments": "{}"}}],
    }


DEFAULTS: dict[Api, dict[str, Any]] = {
    CHAT: {"messages": 1},
    COMPLETIONS: {"max_output": 16},
    EMBEDDINGS: {"max_output": 0},
    RESPONSES: {"messages": 1},
    MESSAGES: {"messages": 1, "max_output": 50},
}

# Name, API, body, and the facts that differ from the API's defaults.
READ: list[tuple[str, Api, dict[str, Any], dict[str, Any]]] = [
    ("chat-plain", CHAT, chat(), {"text_bytes": 5}),
    ("chat-messages", CHAT, chat(user("Hello"), user("World!")), {"text_bytes": 11, "messages": 2}),
    ("chat-utf8-bytes", CHAT, chat(user("Grüße")), {"text_bytes": 7}),
    ("chat-cjk", CHAT, chat(user("天地玄黄")), {"text_bytes": 12, "category": Category.CHINESE}),
    ("chat-emoji", CHAT, chat(user("a 😀")), {"text_bytes": 6, "category": Category.OTHER}),
    ("chat-null-content", CHAT, chat(user(None)), {"text_bytes": 0}),
    ("chat-no-content", CHAT, chat({"role": "assistant"}), {"text_bytes": 0}),
    ("chat-text-parts", CHAT, chat(user([part("text", text="ab"), part("text", text="cd")])), {"text_bytes": 4}),
    ("chat-string-parts", CHAT, chat(user(["ab", "cd"])), {"text_bytes": 4}),
    ("chat-null-text", CHAT, chat(user([part("text", text=None)])), {"text_bytes": 0}),
    ("chat-refusal-part", CHAT, chat(user([part("refusal", refusal="no!")])), {"text_bytes": 3}),
    ("chat-image", CHAT, chat(user([part("image_url", image_url={"url": PNG})])), {"images": 1}),
    ("chat-image-untyped", CHAT, chat(user([{"image_url": PNG}])), {"images": 1}),
    ("chat-image-disguised", CHAT, chat(user([part("text", text="", uuid="u", image_url=PNG)])), {"images": 1}),
    (
        "chat-audio",
        CHAT,
        chat(user([part("input_audio", input_audio={"data": "A" * 999, "format": "wav"})])),
        {"audios": 1},
    ),
    ("chat-audio-url", CHAT, chat(user([part("audio_url", audio_url={"url": "http://a/b"})])), {"audios": 1}),
    ("chat-video", CHAT, chat(user([part("video_url", video_url={"url": "http://a/b"})])), {"images": VIDEO_IMAGES}),
    ("chat-unknown-part", CHAT, chat(user([part("file", file={"file_data": PNG})])), {}),
    ("chat-tool-call", CHAT, chat(user("Hi"), asks("look")), {"text_bytes": 2 + 4 + 2, "messages": 2}),
    (
        "chat-function-call",
        CHAT,
        chat({"role": "assistant", "function_call": {"name": "f", "arguments": "[1]"}}),
        {"text_bytes": 4},
    ),
    ("chat-tool-answer", CHAT, chat({"role": "tool", "tool_call_id": "call_1", "content": "42"}), {"text_bytes": 2}),
    ("chat-tools", CHAT, chat(tools=TOOLS), {"text_bytes": 5 + TOOLS_BYTES, "category": Category.JSON}),
    ("chat-functions", CHAT, chat(functions=TOOLS), {"text_bytes": 5 + TOOLS_BYTES, "category": Category.JSON}),
    ("chat-no-tools", CHAT, chat(tools=None, functions=[]), {"text_bytes": 5}),
    ("chat-response-format", CHAT, chat(response_format={"type": "json_schema"}), {"text_bytes": 5}),
    (
        "chat-reasoning",
        CHAT,
        chat({"role": "assistant", "reasoning": "hmm", "reasoning_content": "hmm"}),
        {"text_bytes": 3},
    ),
    (
        "chat-old-reasoning",
        CHAT,
        chat({"role": "assistant", "reasoning": None, "reasoning_content": "hmm"}),
        {"text_bytes": 3},
    ),
    ("chat-short-name", CHAT, chat({"role": "user", "name": "bob", "content": "Hi"}), {"text_bytes": 2}),
    ("chat-prompt-in-role", CHAT, chat({"role": "x y " * 100, "content": "Hi"}), {"text_bytes": 402}),
    ("chat-max-tokens", CHAT, chat(max_tokens=7), {"text_bytes": 5, "max_output": 7}),
    (
        "chat-max-completion-tokens",
        CHAT,
        chat(max_tokens=7, max_completion_tokens=9),
        {"text_bytes": 5, "max_output": 9},
    ),
    (
        "chat-null-limits",
        CHAT,
        chat(max_tokens=7, max_completion_tokens=None, n=None),
        {"text_bytes": 5, "max_output": 7},
    ),
    ("chat-choices", CHAT, chat(n=128), {"text_bytes": 5, "choices": 128}),
    ("chat-stream", CHAT, chat(stream=True), {"text_bytes": 5, "stream": True}),
    ("chat-null-stream", CHAT, chat(stream=None, stream_options=None), {"text_bytes": 5}),
    (
        "chat-usage",
        CHAT,
        chat(stream=True, stream_options={"include_usage": True}),
        {"text_bytes": 5, "stream": True, "usage_asked": True},
    ),
    (
        "chat-usage-false",
        CHAT,
        chat(stream=True, stream_options={"include_usage": False}),
        {"text_bytes": 5, "stream": True},
    ),
    ("completion-string", COMPLETIONS, completion("Hello"), {"text_bytes": 5}),
    (
        "completion-strings",
        COMPLETIONS,
        completion(["ab", "cd", "\u00e9f"]),
        {"text_bytes": 7, "prompts": 3, "longest_text_bytes": 3},
    ),
    ("completion-ids", COMPLETIONS, completion([1, 2, 3]), {"exact_tokens": 3}),
    (
        "completion-id-lists",
        COMPLETIONS,
        completion([[1, 2, 3], [4]]),
        {"exact_tokens": 4, "prompts": 2, "longest_exact_tokens": 3},
    ),
    (
        "completion-limit",
        COMPLETIONS,
        completion("Hi", max_tokens=0, n=2),
        {"text_bytes": 2, "max_output": 0, "choices": 2},
    ),
    ("completion-null-limit", COMPLETIONS, completion("Hi", max_tokens=None), {"text_bytes": 2, "max_output": None}),
    ("completion-suffix", COMPLETIONS, completion("Hi", suffix="end"), {"text_bytes": 5}),
    ("embedding-string", EMBEDDINGS, embedding("Hello"), {"text_bytes": 5}),
    ("embedding-strings", EMBEDDINGS, embedding(["ab", "c"]), {"text_bytes": 3, "prompts": 2, "longest_text_bytes": 2}),
    ("embedding-ids", EMBEDDINGS, embedding([5, 6]), {"exact_tokens": 2}),
    (
        "embedding-id-lists",
        EMBEDDINGS,
        embedding([[5, 6], []]),
        {"exact_tokens": 2, "prompts": 2, "longest_exact_tokens": 2},
    ),
    ("embedding-messages", EMBEDDINGS, chat(), {"text_bytes": 5, "messages": 1}),
    ("response-string", RESPONSES, response("Hello"), {"text_bytes": 5}),
    ("response-instructions", RESPONSES, response("Hello", instructions="Be brief"), {"text_bytes": 13, "messages": 2}),
    ("response-messages", RESPONSES, response([user("Hello"), user("World")]), {"text_bytes": 10, "messages": 2}),
    (
        "response-parts",
        RESPONSES,
        response([user([part("input_text", text="ab"), part("input_image", image_url=PNG)])]),
        {"text_bytes": 2, "images": 1},
    ),
    (
        "response-call",
        RESPONSES,
        response([part("function_call", call_id="c", name="f", arguments="[1]")]),
        {"text_bytes": 4},
    ),
    (
        "response-output",
        RESPONSES,
        response([part("function_call_output", call_id="c", output="42")]),
        {"text_bytes": 2},
    ),
    (
        "response-output-parts",
        RESPONSES,
        response([part("function_call_output", output=[part("input_text", text="42")])]),
        {"text_bytes": 2},
    ),
    (
        "response-screenshot",
        RESPONSES,
        response([part("computer_call_output", output=part("computer_screenshot", image_url=PNG))]),
        {"images": 1},
    ),
    (
        "response-reasoning",
        RESPONSES,
        response([part("reasoning", summary=[part("summary_text", text="so")])]),
        {"text_bytes": 2},
    ),
    (
        "response-tools",
        RESPONSES,
        response("Hi", tools=TOOLS),
        {"text_bytes": 2 + TOOLS_BYTES, "category": Category.JSON},
    ),
    (
        "response-limit",
        RESPONSES,
        response("Hi", max_output_tokens=30, stream=True),
        {"text_bytes": 2, "max_output": 30, "stream": True},
    ),
    ("anthropic-plain", MESSAGES, anthropic(), {"text_bytes": 5}),
    ("anthropic-system", MESSAGES, anthropic(system="Be brief"), {"text_bytes": 13, "messages": 2}),
    (
        "anthropic-system-blocks",
        MESSAGES,
        anthropic(system=[part("text", text="Brief")]),
        {"text_bytes": 10, "messages": 2},
    ),
    (
        "anthropic-image",
        MESSAGES,
        anthropic(user([part("image", source={"type": "base64", "data": PNG}), part("text", text="ab")])),
        {"text_bytes": 2, "images": 1},
    ),
    (
        "anthropic-tool-use",
        MESSAGES,
        anthropic(user([part("tool_use", id="t", name="fn", input={"a": 1})])),
        {"text_bytes": 10, "category": Category.JSON},
    ),
    (
        "anthropic-tool-results",
        MESSAGES,
        anthropic(
            user(
                [
                    part("tool_result", content="42"),
                    part("tool_result", content=[part("image"), part("text", text="x")]),
                ]
            )
        ),
        {"text_bytes": 3, "images": 1, "messages": 2},
    ),
    (
        "anthropic-tool-result-and-text",
        MESSAGES,
        anthropic(user([part("tool_result", content="42"), part("text", text="x")])),
        {"text_bytes": 3, "messages": 2},
    ),
    (
        "anthropic-thinking",
        MESSAGES,
        anthropic(
            user([part("thinking", thinking="hmm", signature="A" * 99), part("redacted_thinking", data="A" * 99)])
        ),
        {"text_bytes": 3},
    ),
    (
        "anthropic-tools",
        MESSAGES,
        anthropic(tools=[{"name": "f", "input_schema": {}}]),
        {"text_bytes": 5 + 35, "category": Category.JSON},
    ),
    (
        "anthropic-stream",
        MESSAGES,
        anthropic(stream=True, max_tokens=9),
        {"text_bytes": 5, "max_output": 9, "stream": True},
    ),
]


@pytest.mark.parametrize(("api", "body", "differs"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_read_gives_exactly_the_facts_of_a_body(api: Api, body: dict[str, Any], differs: dict[str, Any]) -> None:
    expected: dict[str, Any] = {"category": Category.PROSE, "text_bytes": 0, **DEFAULTS[api], **differs}
    assert facts_of(api, encoded(body)) == RequestFacts(api=api, model="m", **expected)


def test_the_last_of_duplicate_keys_counts_as_in_python() -> None:
    body = b'{"model":"a","max_tokens":1,"messages":[{"role":"user","content":"x"}],"m\\u0061x_tokens":99,"model":"m"}'
    facts = facts_of(CHAT, body)
    assert (facts.model, facts.max_output) == (json.loads(body)["model"], json.loads(body)["max_tokens"])


@pytest.mark.parametrize(
    ("path", "api"),
    [
        *((api.value, api) for api in Api),
        ("/v1/chat/completions/", CHAT),
        ("/v1/chat/completions?a=/b", CHAT),
        ("/v1/completions/?a", COMPLETIONS),
        ("/v1/chat/completions//", None),
        ("/v1/messages/count_tokens", None),
        ("/v1/models", None),
        ("/V1/embeddings", None),
        ("/", None),
        ("", None),
    ],
)
def test_api_of_knows_paths_with_a_query_or_one_slash_more(path: str, api: Api | None) -> None:
    assert api_of(path) is api


apis = st.sampled_from(Api)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = sorted({key for row in READ for key in row[2]} | {"role", "content", "type", "text", "name", "output"})


@given(apis, st.binary(max_size=200))
def test_no_bytes_make_read_raise(api: Api, body: bytes) -> None:
    read(api, body)


@given(apis, st.dictionaries(st.sampled_from(FIELDS), values, max_size=6))
def test_no_json_makes_read_raise(api: Api, body: dict[str, Any]) -> None:
    read(api, json.dumps({"model": "m", **body}).encode())


@given(st.sampled_from(READ), st.data())
@settings(max_examples=300)
def test_no_mutation_of_a_valid_body_makes_read_raise(
    row: tuple[str, Api, dict[str, Any], Any], data: st.DataObject
) -> None:
    body = bytearray(encoded(row[2]))
    start = data.draw(st.integers(0, len(body)))
    body[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    found = read(row[1], bytes(body))
    if isinstance(found, RequestFacts):
        ask_for_usage(bytes(body), found)


@given(st.lists(st.text(), min_size=1), st.booleans())
def test_text_bytes_are_the_utf8_bytes_of_the_text_however_it_is_escaped(texts: list[str], ascii_only: bool) -> None:
    body = json.dumps(chat(*map(user, texts)), ensure_ascii=ascii_only).encode()
    facts = facts_of(CHAT, body)
    assert (facts.text_bytes, facts.messages) == (sum(len(text.encode()) for text in texts), len(texts))
