"""Refusals as clients see them: words, status, headers, and the body in the shape of their API."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core import wording
from extproc.core.refusal import ErrorShape, Reason, Refusal, body, headers
from extproc.core.wording import Limits, duration, limit_headers
from tests.core.values import entitlement

OPENAI, ANTHROPIC = ErrorShape.OPENAI, ErrorShape.ANTHROPIC
OVER = wording.over_limit(entitlement(), Reason.CONCURRENCY, 1500, (("x-ratelimit-limit-requests", "4"),))
refusals = st.builds(
    Refusal,
    status=st.sampled_from([400, 401, 404, 413, 429, 503]),
    reason=st.sampled_from(Reason),
    message=st.text(),
    param=st.none() | st.text(),
    retry_ms=st.none() | st.integers(0, 10**9),
)


@pytest.mark.parametrize(
    ("retry_ms", "seconds"), [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (1999, "2"), (60_000, "60")]
)
def test_retry_after_is_in_whole_seconds_rounded_up(retry_ms: int, seconds: str) -> None:
    found = dict(headers(Refusal(429, Reason.KV_TOKENS, "", retry_ms=retry_ms)))
    assert (found["retry-after"], found["retry-after-ms"]) == (seconds, str(retry_ms))


def test_what_waiting_cannot_help_names_no_time_to_retry() -> None:
    assert headers(wording.unknown_key()) == [
        ("content-type", "application/json"),
        ("x-tokenpool-reason", "unauthorized"),
    ]


def test_a_refusal_over_the_limit_carries_reason_times_and_limits() -> None:
    assert dict(headers(OVER)) == {
        "content-type": "application/json",
        "x-tokenpool-reason": "concurrency",
        "retry-after": "2",
        "retry-after-ms": "1500",
        "x-ratelimit-limit-requests": "4",
    }


@pytest.mark.parametrize(
    ("refusal", "kind", "code", "param"),
    [
        pytest.param(wording.unknown_key(), "invalid_request_error", "invalid_api_key", None, id="401"),
        pytest.param(wording.unknown_model("x"), "invalid_request_error", "model_not_found", "model", id="404 model"),
        pytest.param(wording.unknown_path("GET", "/x"), "invalid_request_error", "not_found", None, id="404 path"),
        pytest.param(
            wording.too_large_for_entitlement(entitlement(), None, 9, 9),
            "invalid_request_error",
            "entitlement_exceeded",
            "max_tokens",
            id="400",
        ),
        pytest.param(OVER, "rate_limit_error", "rate_limit_exceeded", None, id="429"),
        pytest.param(wording.no_ledger(), "api_error", "ledger_unavailable", None, id="503"),
    ],
)
def test_openais_shape(refusal: Refusal, kind: str, code: str, param: str | None) -> None:
    assert json.loads(body(refusal, OPENAI)) == {
        "error": {"message": refusal.message, "type": kind, "param": param, "code": code}
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_anthropics_shape(status: int, kind: str) -> None:
    assert json.loads(body(Refusal(status, Reason.INVALID_REQUEST, "no"), ANTHROPIC)) == {
        "type": "error",
        "error": {"type": kind, "message": "no"},
    }


@given(refusals, st.sampled_from(ErrorShape))
def test_every_refusal_is_json_that_says_its_message(refusal: Refusal, shape: ErrorShape) -> None:
    assert json.loads(body(refusal, shape))["error"]["message"] == refusal.message


@given(refusals)
def test_no_header_of_a_refusal_can_break_a_response(refusal: Refusal) -> None:
    assert all(name.isascii() and value.isascii() and value.isprintable() for name, value in headers(refusal))


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (90_500, "1m30.5s"),
        (3_600_000, "60m0s"),
    ],
)
def test_durations_are_written_as_openai_does(ms: int, text: str) -> None:
    assert duration(ms) == text


@given(st.integers(0, 10**9))
def test_a_duration_can_be_read_back_exactly(ms: int) -> None:
    text = duration(ms)
    if text.endswith("ms"):
        assert int(text[:-2]) == ms
        return
    minutes, _, seconds = text[:-1].rpartition("m")
    assert int(minutes or 0) * 60_000 + round(float(seconds) * 1000) == ms


def test_limits_become_openais_headers() -> None:
    assert dict(limit_headers(Limits(8, 3, 0, 1000, 250, 7500))) == {
        "x-ratelimit-limit-requests": "8",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "0ms",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "250",
        "x-ratelimit-reset-tokens": "7.5s",
    }


@pytest.mark.parametrize("reason", [Reason.TOKENS_PER_SECOND, Reason.KV_TOKENS, Reason.CONCURRENCY])
def test_over_its_limit_a_tenant_is_told_unit_limit_and_wait(reason: Reason) -> None:
    of = entitlement()
    message = wording.over_limit(of, reason, 250, ()).message
    assert str(getattr(of.caps, reason.value)) in message
    assert "'acme'" in message
    assert message.endswith("Please try again in 250ms.")


def test_a_full_pool_is_not_blamed_on_the_tenant() -> None:
    assert "promised to others" in wording.over_limit(entitlement(), Reason.POOL_CAPACITY, 250, ()).message


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (Reason.TOKENS_PER_SECOND, "about 5000 tokens, and its buckets hold 1000"),
        (Reason.KV_TOKENS, "about 6000 KV-cache tokens, and its cap is 10000"),
        (None, "about 5000 tokens, more than a server of 'm' can ever set aside for it"),
    ],
)
def test_a_request_that_is_too_large_for_its_tenant_is_told_why(unit: Reason | None, said: str) -> None:
    refusal = wording.too_large_for_entitlement(entitlement(), unit, 5000, 6000)
    assert refusal.message.endswith(f"it needs {said}.")
    assert (refusal.status, refusal.retry_ms) == (400, None)


def test_an_unknown_path_is_repeated_without_its_query() -> None:
    assert wording.unknown_path("GET", "/v1/x?key=secret").message == "Unknown request: GET /v1/x."
