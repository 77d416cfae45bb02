"""What a request meets on its way through a real Envoy."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from extproc.core.facts import Api
from extproc.core.metadata import ATTRIBUTES, RATE_LIMIT_HEADERS, STREAM_HEADER, cluster_name, header_attribute
from tests.envoy.conftest import MAX_BODY_BYTES, SHORT_LIMIT, Stack
from tests.envoy.fakes import MODEL

CHAT = Api.CHAT.value


async def post(stack: Stack, body: dict[str, Any] | bytes, path: str = CHAT, **headers: str) -> tuple[int, Any, bytes]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with stack.envoy.client.post(stack.envoy.url + path, data=raw, headers=named) as reply:
        return reply.status, reply.headers, await reply.read()


def padded(size: int, **fields: Any) -> bytes:
    text = json.dumps(fields).encode()
    return text + b" " * (size - len(text))


async def test_a_request_costs_the_sidecar_one_message_with_body_and_attributes(stack: Stack) -> None:
    before = len(stack.seen.messages)
    status, _, _ = await post(stack, {"a": 1}, authorization="Bearer k")
    assert status == 200
    assert len(stack.seen.messages) == before + 1
    message = stack.seen.messages[-1]
    assert message.request_body.body == b'{"a": 1}'
    attributes = message.attributes["envoy.filters.http.ext_proc"].fields
    assert {"request.method", "request.path", "request.headers['authorization']"} <= set(attributes) <= set(ATTRIBUTES)
    assert attributes["request.path"].string_value == CHAT


async def test_the_verdict_names_the_pool(stack: Stack) -> None:
    before = len(stack.long.requests)
    status, headers, _ = await post(stack, {"verdict": {"route": cluster_name(MODEL, "long"), "pool": "long"}})
    assert (status, headers["x-tokenpool-pool"]) == (200, "long")
    assert len(stack.long.requests) == before + 1


async def test_a_pool_that_envoy_does_not_know_yet_is_a_503(stack: Stack) -> None:
    status, headers, _ = await post(stack, {"verdict": {"route": "m/new"}})
    assert (status, headers["x-tokenpool-reason"]) == (503, "no_servers")


async def test_headers_that_are_ours_are_not_taken_from_a_client(stack: Stack) -> None:
    await post(
        stack,
        {},
        x_envoy_max_retries="9",
        x_envoy_upstream_rq_timeout_ms="1",
        x_envoy_retry_on="5xx",
        x_tokenpool_pool="evil",
        x_tokenpool_anything="evil",
        x_other="kept",
    )
    headers = stack.short.requests[-1][1]
    assert headers["x-other"] == "kept"
    assert headers["x-tokenpool-pool"] == "short"
    assert "x-tokenpool-anything" not in headers
    assert not any(name.startswith("x-envoy-") for name in headers)


async def test_a_client_cannot_switch_a_retry_on(stack: Stack) -> None:
    status, _, _ = await post(
        stack,
        {"prompt": SHORT_LIMIT + 1},
        x_envoy_retry_on="retriable-status-codes",
        x_envoy_retriable_status_codes="400",
    )
    assert status == 400


async def test_a_server_never_sees_the_key(stack: Stack) -> None:
    await post(stack, {}, authorization="Bearer secret", x_api_key="secret")
    assert "secret" not in str(stack.short.requests[-1])


async def test_a_server_is_called_by_its_own_name(stack: Stack) -> None:
    await post(stack, {}, host="evil.example")
    assert stack.short.requests[-1][1]["host"] == f"127.0.0.1:{stack.short.port}"


async def test_the_limits_stand_in_the_answer(stack: Stack) -> None:
    verdict = {key: str(number) for number, key in enumerate(RATE_LIMIT_HEADERS.values(), start=10)}
    _, headers, _ = await post(stack, {"verdict": verdict})
    assert [headers[name] for name in RATE_LIMIT_HEADERS] == ["10", "11", "12", "13", "14", "15"]


async def test_a_client_keeps_its_own_request_id(stack: Stack) -> None:
    _, headers, _ = await post(stack, {}, x_request_id="mine")
    assert headers["x-request-id"] == "mine"


@pytest.mark.parametrize("api", Api)
async def test_a_post_without_a_body_never_reaches_a_pool(stack: Stack, api: Api) -> None:
    before = len(stack.seen.messages), len(stack.short.requests), len(stack.long.requests)
    status, headers, body = await post(stack, b"", api.value)
    assert (status, headers["x-tokenpool-reason"]) == (400, "invalid_request")
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["error"]["message"] == "a JSON body is required"
    assert (json.loads(body).get("type") == "error") is (api is Api.MESSAGES)
    assert (len(stack.seen.messages), len(stack.short.requests), len(stack.long.requests)) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", CHAT), ("POST", "/v1/other"), ("DELETE", "/v1/models"), ("POST", "/v1/models")],
)
async def test_anything_else_is_not_found_and_costs_no_message(stack: Stack, method: str, path: str) -> None:
    before = len(stack.seen.messages)
    async with stack.envoy.client.request(method, stack.envoy.url + path, data=b"{}") as reply:
        assert reply.status == 404
        assert (await reply.json())["error"]["code"] == "not_found"
    assert len(stack.seen.messages) == before


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/org%2Fname"])
async def test_the_sidecar_answers_for_the_models(stack: Stack, path: str) -> None:
    async with stack.envoy.client.get(stack.envoy.url + path) as reply:
        assert (reply.status, await reply.json()) == (200, {"object": "list", "data": []})
    assert stack.seen.messages[-1].WhichOneof("request") == "request_headers"


@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 503])
@pytest.mark.parametrize("path", [CHAT, Api.MESSAGES.value])
async def test_a_refusal_reaches_the_client_unchanged(stack: Stack, status: int, path: str) -> None:
    got, headers, body = await post(stack, {"refuse": status}, path)
    assert (got, body) == (status, b'{"error": {"message": "no"}}')
    assert headers["content-type"] == "application/json"
    assert (headers["retry-after"], headers["x-tokenpool-reason"]) == ("7", "concurrency")
    assert headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_body_of_the_largest_size_passes_even_when_the_sidecar_adds_to_it(stack: Stack) -> None:
    status, _, _ = await post(stack, padded(MAX_BODY_BYTES, splice=100))
    assert (status, len(stack.short.requests[-1][2])) == (200, MAX_BODY_BYTES + 100)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CHAT, {"message": "the request body is too large", "type": "invalid_request_error", "param": None}),
        (Api.MESSAGES.value, {"message": "the request body is too large", "type": "request_too_large"}),
    ],
)
async def test_a_larger_body_is_refused_before_the_sidecar(stack: Stack, path: str, expected: dict[str, Any]) -> None:
    before = len(stack.seen.messages)
    status, headers, body = await post(stack, padded(MAX_BODY_BYTES + 1), path)
    assert (status, headers["x-tokenpool-reason"]) == (413, "body_too_large")
    assert expected.items() <= json.loads(body)["error"].items()
    assert len(stack.seen.messages) == before


async def test_an_answer_may_be_larger_than_any_request(stack: Stack) -> None:
    status, _, body = await post(stack, {"large": 8 * MAX_BODY_BYTES})
    assert (status, len(body)) == (200, 8 * MAX_BODY_BYTES + 2)


async def test_a_request_near_the_threshold_goes_to_the_long_pool_after_a_400(stack: Stack) -> None:
    before = len(stack.long.requests)
    verdict = {"retry_on": "retriable-status-codes", "ticket": "near"}
    status, _, _ = await post(stack, {"prompt": SHORT_LIMIT + 1, "verdict": verdict})
    assert status == 200
    assert len(stack.long.requests) == before + 1
    entry = await stack.seen.entry("near")
    assert entry.common_properties.upstream_request_attempt_count == 2


async def test_any_other_400_is_the_clients(stack: Stack) -> None:
    before = len(stack.long.requests)
    status, _, body = await post(stack, {"prompt": SHORT_LIMIT + 1, "verdict": {"retry_on": ""}})
    assert (status, json.loads(body)) == (400, {"error": {"message": "maximum context length"}})
    assert len(stack.long.requests) == before


async def test_a_server_that_breaks_off_is_a_502_in_the_api_s_shape(stack: Stack) -> None:
    status, headers, body = await post(stack, {"hang_up": True}, Api.MESSAGES.value)
    assert (status, headers["x-tokenpool-reason"]) == (502, "no_servers")
    assert json.loads(body)["type"] == "error"


async def test_a_silent_sidecar_is_a_503(stack: Stack) -> None:
    status, headers, body = await post(stack, {"silent": True})
    assert (status, headers["retry-after"]) == (503, "1")
    assert json.loads(body)["error"]["message"] == "token admission is not available"


async def test_a_refusal_leaves_no_entry(stack: Stack) -> None:
    await post(stack, {"refuse": 429})
    await post(stack, {"verdict": {"ticket": "later"}})
    await stack.seen.entry("later")
    assert "refuse" not in stack.seen.logged


async def test_a_client_that_leaves_is_settled(stack: Stack) -> None:
    body = json.dumps({"wait": True, "verdict": {"ticket": "left"}}).encode()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await post(stack, body)
    entry = await stack.seen.entry("left")
    assert entry.common_properties.response_flags.downstream_connection_termination
    assert entry.response.response_code.value == 0


async def test_a_client_that_leaves_before_the_verdict_is_known_by_the_id_of_its_stream(stack: Stack) -> None:
    before = len(stack.seen.messages)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await post(stack, {"silent": True}, x_tokenpool_stream="chosen")
    attributes = stack.seen.messages[before].attributes["envoy.filters.http.ext_proc"]
    stream = str(attributes[header_attribute(STREAM_HEADER)])
    assert stream != "chosen"
    entry = await stack.seen.entry(stream)
    assert entry.response.response_code.value == 0
