"""Which bodies `read` refuses, and what it says of them."""

from __future__ import annotations

import json

import pytest

from extproc.core.facts import Api
from extproc.core.refusal import Reason, Refusal
from extproc.core.request import MAX_COMMAS, MAX_NESTED, read
from tests.core.bodies import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    anthropic,
    chat,
    completion,
    encoded,
    response,
    user,
)


def refusal_of(api: Api, body: bytes) -> Refusal:
    found = read(api, body)
    assert isinstance(found, Refusal), found
    return found


REFUSED: list[tuple[str, Api, bytes, str | None]] = [
    ("empty", CHAT, b"", None),
    ("spaces", CHAT, b"  \n", None),
    ("array", CHAT, b"[]", None),
    ("string", CHAT, b'"x"', None),
    ("null", CHAT, b"null", None),
    ("truncated", CHAT, encoded(chat())[:-1], None),
    ("trailing", CHAT, encoded(chat()) + b"{}", None),
    ("nan", CHAT, b'{"model":"m","top_p":NaN}', None),
    ("utf16", CHAT, json.dumps(chat()).encode("utf-16"), None),
    ("byte-order-mark", CHAT, b"\xef\xbb\xbf" + encoded(chat()), None),
    ("invalid-utf8", CHAT, encoded(chat()).replace(b"Hello", b"\xff"), None),
    ("invalid-utf8-skipped", CHAT, encoded(chat(user="?")).replace(b"?", b"\xff"), None),
    ("lone-surrogate", CHAT, encoded(chat()).replace(b"Hello", rb"\ud800"), None),
    ("lone-surrogate-skipped", CHAT, encoded(chat(user="?")).replace(b"?", rb"\udc00 "), None),
    ("deep", CHAT, encoded(chat(user=0)).replace(b": 0", b":" + b"[" * 5000 + b"]" * 5000), None),
    ("deep-tools", CHAT, encoded(chat(tools=0)).replace(b": 0", b":" + b'{"a":' * 5000 + b"1" + b"}" * 5000), None),
    ("many-objects", CHAT, b'{"model":"m","messages":[' + b"{}," * MAX_NESTED + b"{}]}", None),
    ("many-values", CHAT, b'{"model":"m","messages":[],"x":[' + b"1," * MAX_COMMAS + b"1,1]}", None),
    ("background", RESPONSES, encoded(response("x", background=True)), "background"),
    ("stored-answer", RESPONSES, encoded(response("x", previous_response_id="r")), "previous_response_id"),
    ("no-model", CHAT, b'{"messages":[{"role":"user"}]}', "model"),
    ("null-model", CHAT, encoded({**chat(), "model": None}), "model"),
    ("number-model", CHAT, encoded({**chat(), "model": 5}), "model"),
    ("empty-model", CHAT, encoded({**chat(), "model": ""}), "model"),
    ("huge-model", CHAT, encoded({**chat(), "model": "m" * 257}), "model"),
    ("no-messages", CHAT, b'{"model":"m"}', "messages"),
    ("null-messages", CHAT, b'{"model":"m","messages":null}', "messages"),
    ("empty-messages", CHAT, b'{"model":"m","messages":[]}', "messages"),
    ("message-without-role", CHAT, b'{"model":"m","messages":[{"content":"x"}]}', "messages"),
    ("content-number", CHAT, encoded(chat(user(5))), "messages"),
    ("content-object", CHAT, encoded(chat(user({"type": "text"}))), "messages"),
    ("n-zero", CHAT, encoded(chat(n=0)), "n"),
    ("n-negative", CHAT, encoded(chat(n=-1)), "n"),
    ("n-fraction", CHAT, encoded(chat(n=1.5)), "n"),
    ("n-boolean", CHAT, encoded(chat(n=True)), "n"),
    ("n-string", CHAT, encoded(chat(n="2")), "n"),
    ("n-billion", CHAT, encoded(chat(n=10**9)), "n"),
    ("max-tokens-zero", CHAT, encoded(chat(max_tokens=0)), "max_tokens"),
    ("max-tokens-negative", CHAT, encoded(chat(max_tokens=-1)), "max_tokens"),
    ("max-tokens-boolean", CHAT, encoded(chat(max_tokens=True)), "max_tokens"),
    ("max-tokens-huge", CHAT, encoded(chat(max_tokens=2**53)), "max_tokens"),
    ("max-tokens-5000-digits", CHAT, encoded(chat(max_tokens=0)).replace(b": 0", b":" + b"9" * 5000), "max_tokens"),
    ("max-tokens-1e400", CHAT, encoded(chat(max_tokens=0)).replace(b": 0", b":1e400"), "max_tokens"),
    ("max-completion-tokens", CHAT, encoded(chat(max_completion_tokens=0)), "max_completion_tokens"),
    ("stream-number", CHAT, encoded(chat(stream=1)), "stream"),
    ("stream-string", CHAT, encoded(chat(stream="true")), "stream"),
    ("stream-options-list", CHAT, encoded(chat(stream_options=[])), "stream_options"),
    ("include-usage-number", CHAT, encoded(chat(stream_options={"include_usage": 1})), "stream_options"),
    ("no-prompt", COMPLETIONS, b'{"model":"m"}', "prompt"),
    ("empty-prompts", COMPLETIONS, encoded(completion([])), "prompt"),
    ("mixed-prompts", COMPLETIONS, encoded(completion(["a", 1])), "prompt"),
    ("mixed-ids", COMPLETIONS, encoded(completion([[1], 1])), "prompt"),
    ("negative-id", COMPLETIONS, encoded(completion([-1])), "prompt"),
    ("boolean-id", COMPLETIONS, encoded(completion([True])), "prompt"),
    ("prompt-embeds", COMPLETIONS, encoded(completion("x", prompt_embeds="AAAA")), "prompt_embeds"),
    ("completion-negative", COMPLETIONS, encoded(completion("x", max_tokens=-1)), "max_tokens"),
    ("no-input", EMBEDDINGS, b'{"model":"m"}', "input"),
    ("no-response-input", RESPONSES, b'{"model":"m"}', "input"),
    ("response-limit", RESPONSES, encoded(response("x", max_output_tokens=0)), "max_output_tokens"),
    ("anthropic-no-limit", MESSAGES, b'{"model":"m","messages":[{"role":"user"}]}', "max_tokens"),
    ("anthropic-null-limit", MESSAGES, encoded(anthropic(max_tokens=None)), "max_tokens"),
]


@pytest.mark.parametrize(("api", "body", "param"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_read_refuses_what_cannot_be_priced(api: Api, body: bytes, param: str | None) -> None:
    refusal = refusal_of(api, body)
    assert (refusal.status, refusal.reason, refusal.param) == (400, Reason.INVALID_REQUEST, param)
    assert refusal.message.startswith(param or "The ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The request has no body."),
        (b'{"model":"m"}', "messages: this field is required."),
        (encoded(chat(n=0)), "n: Expected `int` >= 1 - at `$.n`."),
        (b"[]", "The body must be a JSON object: Expected `object`, got `array`."),
        (b"\xff", "The body is not valid UTF-8 (byte 0)."),
    ],
    ids=["empty", "missing", "bound", "array", "utf8"],
)
def test_a_refusal_says_what_to_change(body: bytes, message: str) -> None:
    assert refusal_of(CHAT, body).message == message
