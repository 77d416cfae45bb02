from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer
from prometheus_client import CollectorRegistry

from extproc.core.facts import Api, Category, RequestFacts
from extproc.telemetry import Telemetry
from extproc.telemetry.spans import sampled, write_verdict
from tests.telemetry.facts import ADMITTED, SAMPLED, SETTLED, SPAN_ID, STARTED_NS, TRACE_ID, UNAUTHORIZED, UNSAMPLED


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(memory: InMemorySpanExporter) -> Telemetry:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return Telemetry(CollectorRegistry(), provider.get_tracer("tokenpool"))


def test_a_verdict_span_is_a_child_of_envoys(telemetry: Telemetry, memory: InMemorySpanExporter) -> None:
    telemetry.decided(replace(ADMITTED, traceparent=SAMPLED))
    (span,) = memory.get_finished_spans()
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert span.name == "tokenpool.verdict"


def test_a_verdict_span_has_the_facts_times(telemetry: Telemetry, memory: InMemorySpanExporter) -> None:
    telemetry.decided(replace(ADMITTED, seconds=0.25, traceparent=SAMPLED))
    (span,) = memory.get_finished_spans()
    assert (span.start_time, span.end_time) == (STARTED_NS, STARTED_NS + 250_000_000)


def test_a_verdict_span_says_what_was_decided_and_from_what(telemetry: Telemetry, memory: InMemorySpanExporter) -> None:
    telemetry.decided(replace(ADMITTED, traceparent=SAMPLED))
    (span,) = memory.get_finished_spans()
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "llama",
        "http.response.status_code": 200,
        "tokenpool.entitlement": "acme",
        "tokenpool.pool": "short",
        "tokenpool.verdict": "admit",
        "tokenpool.estimate.prompt_tokens": 250,
        "tokenpool.budget_tokens": 800,
        "tokenpool.reserved_tokens": 400,
        "tokenpool.bytes_per_token": 4.0,
    }


def test_an_early_refusals_span_has_the_reason_and_no_empty_names(
    telemetry: Telemetry, memory: InMemorySpanExporter
) -> None:
    telemetry.decided(replace(UNAUTHORIZED, traceparent=SAMPLED))
    (span,) = memory.get_finished_spans()
    assert dict(span.attributes or {}) == {
        "gen_ai.provider.name": "vllm",
        "http.response.status_code": 401,
        "tokenpool.verdict": "refuse",
        "tokenpool.reason": "unauthorized",
    }


@pytest.mark.parametrize(("status", "code"), [(429, StatusCode.UNSET), (503, StatusCode.ERROR)], ids=str)
def test_only_the_services_own_failures_are_marked_as_errors(
    telemetry: Telemetry, memory: InMemorySpanExporter, status: int, code: StatusCode
) -> None:
    telemetry.decided(replace(UNAUTHORIZED, status=status, reason="no_servers", traceparent=SAMPLED))
    (span,) = memory.get_finished_spans()
    assert span.status.status_code is code


def test_a_settlement_span_has_estimate_and_actual(telemetry: Telemetry, memory: InMemorySpanExporter) -> None:
    telemetry.settled(replace(SETTLED, traceparent=SAMPLED))
    (span,) = memory.get_finished_spans()
    assert span.name == "tokenpool.settlement"
    assert dict(span.attributes or {}) == {
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "llama",
        "gen_ai.usage.input_tokens": 200,
        "gen_ai.usage.output_tokens": 300,
        "tokenpool.entitlement": "acme",
        "tokenpool.pool": "short",
        "tokenpool.category": "prose",
        "tokenpool.source": "usage",
        "tokenpool.misrouted": False,
        "tokenpool.truncated": False,
        "tokenpool.estimate.prompt_tokens": 250,
        "tokenpool.reserved_tokens": 400,
    }


@pytest.mark.parametrize("api", Api)
def test_every_operation_has_a_gen_ai_name(telemetry: Telemetry, memory: InMemorySpanExporter, api: Api) -> None:
    facts = RequestFacts(api, "llama", Category.PROSE, text_bytes=10)
    telemetry.decided(replace(ADMITTED, facts=facts, traceparent=SAMPLED))
    (span,) = memory.get_finished_spans()
    assert (span.attributes or {})["gen_ai.operation.name"] in {"chat", "text_completion", "embeddings"}


@pytest.mark.parametrize("traceparent", ["", UNSAMPLED, "nonsense"], ids=["untraced", "unsampled", "malformed"])
def test_an_unsampled_fact_touches_no_tracing_at_all(traceparent: str) -> None:
    untouchable = cast("Tracer", object())  # any use of it is an AttributeError
    telemetry = Telemetry(CollectorRegistry(), untouchable)
    telemetry.decided(replace(ADMITTED, traceparent=traceparent))
    telemetry.settled(replace(SETTLED, traceparent=traceparent))


@given(flags=st.integers(0, 255))
def test_the_sampled_flag_is_the_lowest_bit(flags: int) -> None:
    assert sampled(f"00-{TRACE_ID}-{SPAN_ID}-{flags:02x}") == bool(flags & 1)


@pytest.mark.parametrize("traceparent", ["", "00", f"00-{TRACE_ID}"], ids=["none", "short", "no flags"])
def test_what_has_no_flags_is_not_sampled(traceparent: str) -> None:
    assert not sampled(traceparent)


@given(traceparent=st.text(alphabet="0123456789abcdef-+_ \x00é", max_size=60))
def test_a_malformed_traceparent_is_no_fault(traceparent: str) -> None:
    write_verdict(TracerProvider(shutdown_on_exit=False).get_tracer("x"), replace(ADMITTED, traceparent=traceparent))
