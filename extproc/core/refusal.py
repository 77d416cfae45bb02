"""A refusal as a value: status, reason, when to retry, and the body in the shape the client's API expects."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a request was refused: the `x-tokenpool-reason` header, the `reason` label."""

    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    INVALID_REQUEST = "invalid_request"
    MODEL_NOT_FOUND = "model_not_found"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    ENTITLEMENT_EXCEEDED = "entitlement_exceeded"  # larger than its tenant's caps could ever hold
    BODY_TOO_LARGE = "body_too_large"
    TOKENS_PER_SECOND = "tokens_per_second"
    KV_TOKENS = "kv_tokens"
    CONCURRENCY = "concurrency"
    POOL_CAPACITY = "pool_capacity"
    PREEMPTED = "preempted"  # its room was promised to another, who claimed it
    NO_SERVERS = "no_servers"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    SHUTTING_DOWN = "shutting_down"


class ErrorShape(StrEnum):
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a refused client is told. `retry_ms` is None where trying again cannot help."""

    status: int
    reason: Reason
    message: str
    param: str | None = None
    retry_ms: int | None = None
    headers: tuple[tuple[str, str], ...] = ()  # further headers: the limits


def headers(refusal: Refusal) -> list[tuple[str, str]]:
    """The response headers of a refusal. `retry-after` is in whole seconds, rounded up; `retry-after-ms` is exact."""
    result = [("content-type", "application/json"), ("x-tokenpool-reason", refusal.reason.value)]
    if refusal.retry_ms is not None:
        result.append(("retry-after", str(max(1, math.ceil(refusal.retry_ms / 1000)))))
        result.append(("retry-after-ms", str(refusal.retry_ms)))
    result.extend(refusal.headers)
    return result


def body(refusal: Refusal, shape: ErrorShape) -> bytes:
    """The JSON body: OpenAI's `{"error": {message, type, param, code}}`, or Anthropic's shape for its own API."""
    if shape is ErrorShape.ANTHROPIC:
        error = {"type": _anthropic_type(refusal.status), "message": refusal.message}
        return json.dumps({"type": "error", "error": error}).encode()
    details = {
        "message": refusal.message,
        "type": _openai_type(refusal.status),
        "param": refusal.param,
        "code": _openai_code(refusal),
    }
    return json.dumps({"error": details}).encode()


def _openai_type(status: int) -> str:
    if status == 429:  # noqa: PLR2004 - an HTTP status
        return "rate_limit_error"
    return "api_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004 - an HTTP status


def _openai_code(refusal: Refusal) -> str:
    if refusal.status == 429:  # noqa: PLR2004 - an HTTP status
        return "rate_limit_exceeded"
    return {Reason.UNAUTHORIZED: "invalid_api_key"}.get(refusal.reason, refusal.reason.value)


def _anthropic_type(status: int) -> str:
    named = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
    }
    return named.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004
