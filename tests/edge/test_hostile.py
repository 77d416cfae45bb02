"""Whatever a client sends, it gets a verdict: never a fault, never a status that blames the sidecar."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.core.facts import Api
from extproc.core.refusal import body, headers
from extproc.verdicts import Admission, Call, Denial, Listing, Moved, Verdict
from extproc.wire import response_of
from tests.edge.envoys import HELLO
from tests.edge.sidecars import Sidecar

ALLOWED = {400, 401, 404, 413, 429, 503}
PATHS = [api.value for api in Api]
VALID: dict[str, dict[str, Any]] = {
    Api.CHAT.value: {
        **HELLO,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}],
            },
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "stream": True,
        "stream_options": {"include_usage": False},
        "n": 2,
    },
    Api.COMPLETIONS.value: {"model": "llama", "prompt": ["a", "b"], "max_tokens": 5, "stream": True},
    Api.EMBEDDINGS.value: {"model": "llama", "input": [[1, 2, 3], [4]]},
    Api.RESPONSES.value: {
        "model": "llama",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "max_output_tokens": 7,
    },
    Api.MESSAGES.value: {
        "model": "llama",
        "max_tokens": 9,
        "system": "s",
        "messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}],
    },
}
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([2**63, -1, 10**400, ""])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
FEW = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    found = [path]
    if isinstance(value, dict):
        inner: Any = value.items()
    else:
        inner = enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        found += places(each, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A valid body with one value replaced, or with its bytes cut, repeated or overwritten."""
    path = draw(st.sampled_from(PATHS))
    valid = VALID[path]
    if draw(st.booleans()):
        return path, json.dumps(replaced(valid, draw(st.sampled_from(places(valid))), draw(values))).encode()
    data = json.dumps(valid).encode()
    begin, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    return path, data[:begin] + draw(st.binary(max_size=6) | st.just(data[begin:end] * 2)) + data[end:]


def call(path: str, data: bytes, **rest: Any) -> Call:
    return Call("POST", path, **{"authorization": "Bearer sk-acme", **rest}, body=data)


async def decided(running: Sidecar, asked: Call) -> Verdict:
    """The verdict, which could be sent; what it admits is given back."""
    verdict = await running.verdicts.decide(asked)
    assert not isinstance(verdict, Moved)
    assert response_of(verdict).SerializeToString()
    if isinstance(verdict, Denial):
        assert verdict.refusal.status in ALLOWED
        json.loads(body(verdict.refusal, verdict.shape))
        assert all(isinstance(value, str) for _, value in headers(verdict.refusal))
    if isinstance(verdict, Admission):
        running.edge._settlements.release(verdict.ticket)
        await running.edge._settlements.drain(5)
    return verdict


@pytest.mark.parametrize("path", PATHS)
async def test_the_bodies_that_are_mutated_below_are_valid(running: Sidecar, path: str) -> None:
    assert isinstance(await decided(running, call(path, json.dumps(VALID[path]).encode())), Admission)


@FEW
@given(st.sampled_from(PATHS), st.binary())
async def test_arbitrary_bytes(running: Sidecar, path: str, data: bytes) -> None:
    assert isinstance(await decided(running, call(path, data)), Denial)


@FEW
@given(st.sampled_from(PATHS), values)
async def test_arbitrary_json(running: Sidecar, path: str, value: Any) -> None:
    assert isinstance(await decided(running, call(path, json.dumps(value).encode())), Denial)


@FEW
@given(mutated())
async def test_valid_bodies_gone_wrong(running: Sidecar, asked: tuple[str, bytes]) -> None:
    await decided(running, call(*asked))


@FEW
@given(
    st.builds(
        Call,
        method=st.sampled_from(["GET", "HEAD", "POST", "DELETE", ""]) | st.text(),
        path=st.sampled_from([*PATHS, "/v1/models", "/v1/models/"]) | st.text(),
        authorization=st.sampled_from(["Bearer sk-acme", "Bearer", ""]) | st.text(),
        x_api_key=st.text(),
        content_encoding=st.sampled_from(["", "identity", "gzip"]) | st.text(),
        identity=st.sampled_from(["", "acme"]) | st.text(),
        body=st.just(json.dumps(HELLO).encode()) | st.binary(),
    )
)
async def test_arbitrary_headers(running: Sidecar, asked: Call) -> None:
    verdict = await decided(running, asked)
    known = asked.identity == "acme" or (not asked.identity and asked.authorization == "Bearer sk-acme")
    assert known or not isinstance(verdict, Admission | Listing)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" * 50_000, id="deep lists"),
        pytest.param(b'{"a":' * 10_000, id="deep objects"),
        pytest.param(b'{"model":"llama","messages":' + b"[" * 30_000 + b"]" * 30_000 + b"}", id="deep messages"),
        pytest.param(b'{"model":"llama","messages":[],"messages":[{"role":"user","content":"\xff"}]}', id="not UTF-8"),
        pytest.param(b'{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}', id="half a surrogate pair"),
        pytest.param(
            b'{"model":"a\\u0000\\r\\nx: y","messages":[{"role":"user","content":"x"}]}', id="control characters"
        ),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(json.dumps(HELLO).encode() * 2, id="two documents"),
        pytest.param(json.dumps(HELLO).encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"model":"llama","max_tokens":1e999,"messages":[{"role":"user","content":"x"}]}', id="infinity"),
    ],
)
async def test_known_poison(running: Sidecar, data: bytes) -> None:
    assert isinstance(await decided(running, call(PATHS[0], data)), Denial)
