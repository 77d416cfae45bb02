"""How the sidecar asks for usage on behalf of streaming clients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Api, Category, RequestFacts
from extproc.core.refusal import Refusal
from extproc.core.request import ask_for_usage, read
from tests.core.bodies import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    anthropic,
    chat,
    completion,
    embedding,
    encoded,
    facts_of,
    response,
)

values = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=3)


@given(
    st.sampled_from([CHAT, COMPLETIONS]),
    st.none() | st.dictionaries(st.text(max_size=8), values, max_size=3),
    st.sampled_from(["", " ", "\r\n\t"]),
    st.booleans(),
)
def test_asking_for_usage_changes_nothing_else(
    api: Api, options: dict[str, Any] | None, space: str, present: bool
) -> None:
    content = chat(stream=True) if api is CHAT else completion("Hello", stream=True)
    options = (
        options if options is None else {key: json.loads(json.dumps(options[key], allow_nan=True)) for key in options}
    )
    document = {**content, "stream_options": options} if present else content
    text = json.dumps(document)
    body = (space + text[:-1] + space + "}" + space).encode()
    facts = read(api, body)
    if isinstance(facts, Refusal) or facts.usage_asked:
        return
    asked = ask_for_usage(body, facts)
    assert asked is not None
    kept = (options or {}) if present else {}
    assert json.loads(asked) == {**content, "stream_options": {**kept, "include_usage": True}}
    assert facts_of(api, asked).usage_asked


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (CHAT, chat()),
        (CHAT, chat(stream=True, stream_options={"include_usage": True})),
        (RESPONSES, response("Hi", stream=True)),
        (MESSAGES, anthropic(stream=True)),
        (EMBEDDINGS, embedding("Hi", stream=True)),
    ],
    ids=["no-stream", "asked", "responses", "anthropic", "embeddings"],
)
def test_usage_is_not_asked_for_where_there_is_no_need(api: Api, body: dict[str, Any]) -> None:
    assert ask_for_usage(encoded(body), facts_of(api, encoded(body))) is None


def test_asking_for_usage_leaves_the_bytes_before_it_as_they_are() -> None:
    body = b'{"model": "m",  "messages":[{"role":"user","content":"\\u00e9"}], "stream":true, "stream":true }\n'
    asked = ask_for_usage(body, facts_of(CHAT, body))
    assert asked == body.rstrip()[:-2] + b',"stream_options":{"include_usage":true}}'


@pytest.mark.parametrize("depth", range(880, 1000, 7))
def test_a_body_that_can_be_read_can_be_asked_for_usage(depth: int) -> None:
    body = encoded(chat(stream=True, user=0)).replace(b": 0", b":" + b"[" * depth + b"]" * depth)
    facts = read(CHAT, body)
    if isinstance(facts, RequestFacts):
        assert ask_for_usage(body, facts)


@pytest.mark.parametrize("body", [b"{}", b" { }\n"], ids=["tight", "spaced"])
def test_asking_for_usage_needs_no_other_key(body: bytes) -> None:
    asked = ask_for_usage(body, RequestFacts(CHAT, "m", Category.PROSE, 0, stream=True))
    assert asked is not None
    assert json.loads(asked) == {"stream_options": {"include_usage": True}}
