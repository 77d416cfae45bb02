"""The observer that turns facts into metrics, and sampled ones into spans too."""

from __future__ import annotations

from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from extproc.core.observed import Decided, Settled
from extproc.telemetry import spans
from extproc.telemetry.metrics import MAX_NAMES, Metrics, SettlementSeries

_FIRST_ERROR = 400


class Telemetry:
    """A `core.observed.Observer`, cheap enough for the hot path: a few microseconds a fact, without a span.

    Args:
        registry: where the metrics register; None in a worker, whose metrics live in the multiprocess files.
        tracer: writes the spans of sampled requests; None for no spans.
        max_names: how many values a label takes before further ones count as "other".
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, tracer: Tracer | None = None, max_names: int = MAX_NAMES
    ) -> None:
        self._metrics = Metrics(registry, max_names)
        self._tracer = tracer

    def decided(self, fact: Decided) -> None:
        key = (fact.model, fact.entitlement, fact.service_class, fact.pool, fact.verdict, fact.reason)
        series = self._metrics.verdict(key)
        series.count.inc()
        series.seconds.observe(fact.seconds)
        if fact.pool and fact.pool != fact.preferred_pool:
            self._metrics.spilled((fact.model, fact.preferred_pool, fact.pool)).inc()
        if self._tracer is not None and spans.sampled(fact.traceparent):
            spans.write_verdict(self._tracer, fact)

    def settled(self, fact: Settled) -> None:
        series = self._metrics.settlement((fact.model, fact.entitlement, fact.pool, fact.category, fact.source))
        series.count.inc()
        series.prompt_tokens.inc(fact.prompt_tokens)
        series.completion_tokens.inc(fact.completion_tokens)
        if fact.misrouted:
            series.refused_by_pool.inc()
        if fact.truncated:
            series.truncated.inc()
        if fact.source == "usage":
            _count_reported(fact, series)
        else:
            series.estimated_tokens.inc(fact.prompt_tokens + fact.completion_tokens)
        if fact.source == "expired":  # nobody saw the answer, so its times are unknown
            series.leases_expired.inc()
        else:
            self._time(fact, series)
        if self._tracer is not None and spans.sampled(fact.traceparent):
            spans.write_settlement(self._tracer, fact)

    def preempted(self, model: str, entitlement: str, service_class: str) -> None:
        self._metrics.preempted((model, entitlement, service_class)).inc()

    def ledger_call(self, operation: str, requests: int, seconds: float) -> None:
        series = self._metrics.ledger((operation,))
        series.seconds.observe(seconds)
        series.requests_per_call.observe(requests)

    def ledger_failed(self, operation: str) -> None:
        self._metrics.ledger((operation,)).failures.inc()

    def log_lost(self, lines: int) -> None:
        """Lines of the request log that could not be written."""
        self._metrics.request_log_lost.inc(lines)

    def _time(self, fact: Settled, series: SettlementSeries) -> None:
        self._metrics.request_duration((fact.model, _error_type(fact.status))).observe(fact.duration_seconds)
        if fact.ttft_seconds is not None:
            series.ttft_seconds.observe(fact.ttft_seconds)


def _count_reported(fact: Settled, series: SettlementSeries) -> None:
    series.input_usage.observe(fact.prompt_tokens)
    series.output_usage.observe(fact.completion_tokens)
    if fact.prompt_tokens > 0:
        error = abs(fact.prompt_estimate - fact.prompt_tokens)
        series.estimate_error_ratio.observe(error / fact.prompt_tokens)


def _error_type(status: int) -> str:
    """OpenTelemetry's `error.type`: "" for success, so that failures do not blur the latency of answers."""
    if status == 0:
        return "client_gone"
    return str(status) if status >= _FIRST_ERROR else ""
