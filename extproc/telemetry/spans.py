"""Spans from facts: children of Envoy's span, written after the event with the times the fact carries."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer
from opentelemetry.util.types import AttributeValue

from extproc.core.facts import Api
from extproc.core.observed import Decided, Settled

_SERVER_ERROR = 500
_NANOSECONDS = 1_000_000_000
_ODD_HEX_DIGITS = frozenset("13579bdf")
_PROVIDER = "vllm"
# OpenTelemetry's GenAI conventions name operations, not paths.
_OPERATIONS = {
    Api.CHAT: "chat",
    Api.COMPLETIONS: "text_completion",
    Api.EMBEDDINGS: "embeddings",
    Api.RESPONSES: "chat",
    Api.MESSAGES: "chat",
}


def sampled(traceparent: str) -> bool:
    """Whether the flags of a W3C traceparent (its characters 53 and 54) ask for spans; false where there is none."""
    return traceparent[54:55] in _ODD_HEX_DIGITS


def write_verdict(tracer: Tracer, fact: Decided) -> None:
    """One `tokenpool.verdict` span of a sampled fact."""
    parent = _parent(fact.traceparent)
    if parent is None:
        return
    attributes = _named(fact.model, fact.entitlement, fact.pool)
    attributes["tokenpool.verdict"] = fact.verdict
    attributes["http.response.status_code"] = fact.status
    if fact.reason:
        attributes["tokenpool.reason"] = fact.reason
    if fact.facts is not None:
        attributes["gen_ai.operation.name"] = _OPERATIONS[fact.facts.api]
        attributes["tokenpool.estimate.prompt_tokens"] = fact.prompt_estimate
        attributes["tokenpool.budget_tokens"] = fact.budget_tokens
        attributes["tokenpool.reserved_tokens"] = fact.reserved_tokens
        attributes["tokenpool.bytes_per_token"] = fact.bytes_per_token
    span = tracer.start_span(
        "tokenpool.verdict", parent, kind=SpanKind.SERVER, attributes=attributes, start_time=fact.started_ns
    )
    if fact.status >= _SERVER_ERROR:
        span.set_status(Status(StatusCode.ERROR, fact.reason))
    span.end(fact.started_ns + round(fact.seconds * _NANOSECONDS))


def write_settlement(tracer: Tracer, fact: Settled) -> None:
    """One `tokenpool.settlement` span of a sampled fact: a moment, since the request itself is Envoy's span."""
    parent = _parent(fact.traceparent)
    if parent is None:
        return
    attributes = _named(fact.model, fact.entitlement, fact.pool)
    attributes["gen_ai.usage.input_tokens"] = fact.prompt_tokens
    attributes["gen_ai.usage.output_tokens"] = fact.completion_tokens
    attributes["tokenpool.estimate.prompt_tokens"] = fact.prompt_estimate
    attributes["tokenpool.reserved_tokens"] = fact.reserved_tokens
    attributes["tokenpool.category"] = fact.category
    attributes["tokenpool.source"] = fact.source
    attributes["tokenpool.misrouted"] = fact.misrouted
    attributes["tokenpool.truncated"] = fact.truncated
    span = tracer.start_span("tokenpool.settlement", parent, attributes=attributes, start_time=fact.at_ns)
    span.end(fact.at_ns)


def _named(model: str, entitlement: str, pool: str) -> dict[str, AttributeValue]:
    """The names that are known; a refusal may come before any is."""
    names = {"gen_ai.request.model": model, "tokenpool.entitlement": entitlement, "tokenpool.pool": pool}
    attributes: dict[str, AttributeValue] = {key: name for key, name in names.items() if name}
    attributes["gen_ai.provider.name"] = _PROVIDER
    return attributes


def _parent(traceparent: str) -> Context | None:
    """The remote parent that a traceparent (version-trace-span-flags) names; None where it is malformed."""
    try:
        trace_id, span_id = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
    except ValueError:
        return None
    parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    if not parent.is_valid:
        return None
    # An empty context, so that nothing of the calling task's leaks into the span.
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())
