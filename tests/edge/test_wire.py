from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc import wire
from extproc.core import metadata
from extproc.core.charge import Ended, Ending, Running, Unjudged
from extproc.core.policy import ServiceClass
from extproc.core.refusal import ErrorShape, Reason, Refusal
from extproc.core.settings import Identity
from extproc.pb import als_pb2
from extproc.verdicts import Admission, Call, Denial, Listing
from tests.core.values import TICKET
from tests.edge.envoys import HELLO, as_bytes, body_message, headers_message, headers_of, log_batch, log_entry
from tests.edge.envoys import verdict_of as metadata_of

LIMITS = (("x-ratelimit-limit-requests", "8"), ("x-ratelimit-reset-tokens", "1.5s"))
ADMISSION = Admission(
    "m", "short", TICKET, LIMITS, retry=False, strip_usage=False, body=None, service_class=ServiceClass.SPOT
)
REFUSAL = Refusal(429, Reason.KV_TOKENS, "Später.", retry_ms=1500)
BY_HEADER = Identity(header="X-Tenant")
BY_METADATA = Identity(metadata_namespace="auth", metadata_key="tenant")
text = st.text(st.characters(codec="utf-8"))


def over_the_wire(message: wire.Request) -> wire.Request:
    return wire.Request.FromString(message.SerializeToString())


def test_one_message_holds_the_whole_call() -> None:
    message = body_message(path="/v1/messages?beta=true", x_api_key="sk-x", content_encoding="gzip")
    assert wire.call_of_body(over_the_wire(message), None, "00-1-2-01") == Call(
        method="POST",
        path="/v1/messages?beta=true",
        authorization="Bearer sk-acme",
        x_api_key="sk-x",
        content_encoding="gzip",
        traceparent="00-1-2-01",
        movable=True,
        body=as_bytes(HELLO),
    )


@pytest.mark.parametrize(("size", "movable"), [(wire.MOVABLE_BYTES, True), (wire.MOVABLE_BYTES + 1, False)])
def test_only_a_body_that_envoy_keeps_can_be_moved_to_another_worker(size: int, movable: bool) -> None:
    assert wire.call_of_body(body_message(b"x" * size), None, "").movable is movable


def test_the_classic_form_cannot_be_moved() -> None:
    message = headers_message("POST", "/v1/x", end_of_stream=False)
    assert not wire.call_of_headers(message, None, "").movable


def test_what_ends_a_request_says_nothing_of_its_lease() -> None:
    ending = wire.ending_of(Denial(REFUSAL, ErrorShape.OPENAI))
    assert ending.immediate_response.status.code == 429
    assert metadata_of(ending) == {}


@given(text, text, st.binary())
def test_whatever_a_client_sends_comes_out_as_it_was(path: str, key: str, body: bytes) -> None:
    call = wire.call_of_body(over_the_wire(body_message(body, path, key)), None, "")
    assert (call.path, call.authorization, call.body) == (path, f"Bearer {key}" if key else "", body)


def test_a_body_without_attributes_is_a_call_to_nowhere() -> None:
    message = wire.Request()
    message.request_body.body = b"{}"
    assert wire.call_of_body(message, BY_HEADER, "") == Call("POST", "", movable=True, body=b"{}")


@pytest.mark.parametrize("raw", [True, False], ids=["as bytes", "as text"])
def test_the_classic_form_takes_the_same_from_headers(raw: bool) -> None:
    message = headers_message("POST", "/v1/x", end_of_stream=False, raw=raw, Authorization="Bearer k", x_api_key="x")
    call = wire.call_of_headers(over_the_wire(message), None, "tp")
    assert call == Call("POST", "/v1/x", "Bearer k", "x", traceparent="tp")
    assert wire.with_body(call, body_message(b"{}")).body == b"{}"


@pytest.mark.parametrize("headers_first", [False, True], ids=["one message", "classic"])
@pytest.mark.parametrize("identity", [BY_HEADER, BY_METADATA, None], ids=["header", "metadata", "none configured"])
def test_an_identity_is_read_from_where_it_is_configured_and_nowhere_else(
    identity: Identity | None, headers_first: bool
) -> None:
    if headers_first:
        message = headers_message("POST", "/v1/x", end_of_stream=False, x_tenant="by-header")
        read = wire.call_of_headers
    else:
        message, read = body_message(x_tenant="by-header"), wire.call_of_body
    message.metadata_context.filter_metadata["auth"].update({"tenant": "by-metadata"})
    expected = {BY_HEADER: "by-header", BY_METADATA: "by-metadata", None: ""}
    assert read(over_the_wire(message), identity, "").identity == expected[identity]


@pytest.mark.parametrize("identity", [BY_HEADER, BY_METADATA], ids=["header", "metadata"])
def test_an_identity_that_is_not_there_is_none(identity: Identity) -> None:
    message = body_message()
    message.metadata_context.filter_metadata["auth"].update({"other": "x"})
    assert wire.call_of_body(message, identity, "").identity == ""


def test_an_admission_is_metadata_for_envoys_routes_headers_and_log() -> None:
    assert metadata_of(wire.response_of(ADMISSION)) == {
        "verdict": "admit",
        "route": "m/short",
        "pool": "short",
        "ticket": TICKET.encode(),
        "retry_on": "",
        "strip_usage": False,
        "limit_requests": "8",
        "reset_tokens": "1.5s",
    }


def test_retry_and_stripping_are_switched_on_by_the_verdict() -> None:
    found = metadata_of(wire.response_of(replace(ADMISSION, retry=True, strip_usage=True)))
    assert (found["retry_on"], found["strip_usage"]) == ("retriable-status-codes", True)


@pytest.mark.parametrize(
    ("classic", "headers_phase", "kind"),
    [(False, False, "request_body"), (True, False, "request_body"), (True, True, "request_headers")],
)
def test_an_admission_answers_the_phase_it_was_asked_in_and_clears_the_route(
    classic: bool, headers_phase: bool, kind: str
) -> None:
    response = wire.response_of(ADMISSION, classic=classic, headers_phase=headers_phase)
    assert response.WhichOneof("response") == kind
    assert getattr(response, kind).response.clear_route_cache
    assert headers_of(response)["x-tokenpool-pool"] == "short"  # without any header mutation the route stays


@pytest.mark.parametrize(("classic", "length"), [(True, "7"), (False, None)])
def test_a_changed_body_brings_its_length_in_the_classic_form_only(classic: bool, length: str | None) -> None:
    response = wire.response_of(replace(ADMISSION, body=b'{"a":1}'), classic=classic)
    assert response.request_body.response.body_mutation.body == b'{"a":1}'
    assert headers_of(response).get("content-length") == length


def test_a_body_that_stays_is_not_sent_back() -> None:
    assert not wire.response_of(ADMISSION, classic=True).request_body.response.HasField("body_mutation")


def test_a_refusal_is_answered_at_once() -> None:
    response = wire.response_of(Denial(REFUSAL, ErrorShape.ANTHROPIC))
    answer = response.immediate_response
    assert (answer.status.code, answer.details) == (429, "tokenpool")
    assert "Sp" in answer.body.decode()
    assert headers_of(response)["retry-after"] == "2"
    assert metadata_of(response) == {"verdict": "refuse"}


def test_a_listing_is_json() -> None:
    response = wire.response_of(Listing(b"{}"), classic=True, headers_phase=True)
    assert (response.immediate_response.status.code, response.immediate_response.body) == (200, b"{}")
    assert headers_of(response) == {"content-type": "application/json"}


def test_headers_alone_are_told_to_go_on() -> None:
    response = wire.proceed_to_body()
    assert response.WhichOneof("response") == "request_headers"
    assert not response.HasField("dynamic_metadata")


def ending_of(entry: als_pb2.HTTPAccessLogEntry) -> Ending:
    batch = als_pb2.StreamAccessLogsMessage.FromString(log_batch(entry).SerializeToString())
    [found] = wire.entries(batch)
    assert isinstance(found, Ended)
    assert found.ticket == TICKET
    return found.ending


def test_an_access_log_entry_tells_how_a_request_ended() -> None:
    entry = log_entry(TICKET.encode(), {"prompt_tokens": 90, "completion_tokens": 30, "cached_tokens": 10})
    entry.common_properties.time_to_first_upstream_rx_byte.FromMilliseconds(250)
    entry.common_properties.upstream_request_attempt_count = 2
    assert ending_of(entry) == Ending(
        200, 90, 30, 10, first_byte=True, response_bytes=500, attempts=2, ttft_seconds=0.25, duration_seconds=1.5
    )


def test_a_client_that_left_before_any_answer_has_status_nought_and_no_first_byte() -> None:
    assert ending_of(log_entry(TICKET.encode(), status=0, response_bytes=0)) == Ending(0, duration_seconds=1.5)


def test_headers_without_a_byte_of_body_are_no_first_byte() -> None:
    entry = log_entry(TICKET.encode(), response_bytes=0)
    entry.common_properties.time_to_first_upstream_rx_byte.FromMilliseconds(250)
    ending = ending_of(entry)
    assert (ending.first_byte, ending.ttft_seconds) == (False, 0.25)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        pytest.param(7, 7, id="a number"),
        pytest.param(0, 0, id="nought"),
        pytest.param(7.9, 7, id="a fraction"),
        pytest.param(-1, None, id="negative"),
        pytest.param(1e300, None, id="huge"),
        pytest.param(10**9, 10**9, id="the most there can be"),
        pytest.param(10**9 + 1, None, id="more than any model"),
        pytest.param(float("nan"), None, id="not a number"),
        pytest.param(float("inf"), None, id="without end"),
        pytest.param("7", None, id="text"),
        pytest.param(True, None, id="a boolean"),
        pytest.param(None, None, id="null"),
        pytest.param([7], None, id="a list"),
        pytest.param({"n": 7}, None, id="an object"),
    ],
)
@pytest.mark.parametrize("key", [metadata.PROMPT_TOKENS, metadata.COMPLETION_TOKENS, metadata.CACHED_TOKENS])
def test_only_a_token_count_is_a_token_count(key: str, value: object, count: int | None) -> None:
    assert getattr(ending_of(log_entry(TICKET.encode(), {key: value})), key) == count


@pytest.mark.parametrize("ticket", [None, "", "garbage", "0" + TICKET.encode()])
def test_entries_without_a_ticket_are_passed_over(ticket: str | None) -> None:
    whole = log_entry(TICKET.encode())
    [found] = wire.entries(log_batch(log_entry(ticket), whole, log_entry(ticket)))
    assert isinstance(found, Ended)
    assert found.ticket == TICKET


def test_a_ticket_that_is_no_text_is_passed_over() -> None:
    entry = log_entry(None)
    entry.common_properties.metadata.filter_metadata[metadata.NAMESPACE].update({metadata.TICKET: 7})
    assert list(wire.entries(log_batch(entry))) == []


def test_an_empty_batch_ends_nothing() -> None:
    assert list(wire.entries(als_pb2.StreamAccessLogsMessage())) == []


def test_an_entry_of_a_running_request_keeps_its_lease() -> None:
    entry = log_entry(TICKET.encode())
    entry.common_properties.intermediate_log_entry = True
    assert list(wire.entries(log_batch(entry))) == [Running(TICKET)]


@pytest.mark.parametrize(("running", "expected"), [(False, [Unjudged("s1")]), (True, [])], ids=["ended", "running"])
def test_a_request_that_ended_without_a_verdict_names_the_lease_it_may_have(
    running: bool, expected: list[Unjudged]
) -> None:
    entry = als_pb2.HTTPAccessLogEntry()
    entry.request.request_headers[metadata.STREAM_HEADER] = "s1"
    entry.common_properties.intermediate_log_entry = running
    assert list(wire.entries(log_batch(entry))) == expected
