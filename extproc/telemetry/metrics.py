"""The metrics that workers write: one set of labelled series per kind of fact, found with a single look-up.

A name that is new when its label is full is counted as "other", so no label has more than `limit` + 1 values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

OTHER = "other"
MAX_NAMES = 1000  # per label; what llm-d allows before it folds
MAX_CACHED = 10_000  # series sets kept at hand; further ones are looked up anew each time

_LATENCY_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_VERDICT_BUCKETS = (*_LATENCY_BUCKETS, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # the later ones: those who waited for room
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RATIO_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# Advised by OpenTelemetry's GenAI conventions ("Generative AI model server metrics", "client metrics").
_GEN_AI_TOKEN_BUCKETS = tuple(4**power for power in range(14))
_GEN_AI_DURATION_BUCKETS = tuple(0.01 * 2**power for power in range(14))
_GEN_AI_TTFT_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)


S = TypeVar("S")


class BoundedNames:
    """Lets the first `limit` names of a label through and calls the rest "other". "" is always let through."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        if name in self._known or not name:
            return name
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(name)
        return name


@dataclass(frozen=True, slots=True)
class VerdictSeries:
    count: Counter
    seconds: Histogram


@dataclass(frozen=True, slots=True)
class SettlementSeries:
    count: Counter
    prompt_tokens: Counter
    completion_tokens: Counter
    estimated_tokens: Counter
    estimate_error_ratio: Histogram
    refused_by_pool: Counter
    truncated: Counter
    leases_expired: Counter
    input_usage: Histogram
    output_usage: Histogram
    ttft_seconds: Histogram


@dataclass(frozen=True, slots=True)
class LedgerSeries:
    seconds: Histogram
    requests_per_call: Histogram
    failures: Counter


class Metrics:
    """Every metric of a worker. With `registry` None they live in the multiprocess files only."""

    def __init__(self, registry: CollectorRegistry | None, max_names: int = MAX_NAMES) -> None:
        self._max_names = max_names
        self._bounds: dict[str, BoundedNames] = {}
        self._create_verdict_metrics(registry)
        self._create_settlement_metrics(registry)
        self._create_ledger_metrics(registry)
        self._create_log_metrics(registry)
        self._create_gen_ai_metrics(registry)
        self.verdict = Cached(self._verdict_series)
        self.preempted = Cached(self._preempted_series)
        self.spilled = Cached(self._spilled_series)
        self.settlement = Cached(self._settlement_series)
        self.ledger = Cached(self._ledger_series)
        self.request_duration = Cached(self._request_duration)

    def _bounded(self, label: str, name: str) -> str:
        return self._bounds.setdefault(label, BoundedNames(self._max_names))(name)

    def _create_verdict_metrics(self, registry: CollectorRegistry | None) -> None:
        self._verdicts = Counter(
            "tokenpool_verdicts_total",
            "Verdicts on requests; refusals with their reason.",
            ("model", "entitlement", "class", "pool", "verdict", "reason"),
            registry=registry,
        )
        self._verdict_seconds = Histogram(
            "tokenpool_verdict_seconds",
            "Time from Envoy's message to the verdict.",
            ("model", "verdict"),
            registry=registry,
            buckets=_VERDICT_BUCKETS,
        )
        self._preempted = Counter(
            "tokenpool_preempted_total",
            "Requests ended since their room was claimed by whom it is promised to.",
            ("model", "entitlement", "class"),
            registry=registry,
        )

        self._spilled = Counter(
            "tokenpool_spilled_total",
            "Requests admitted to another pool than the one they prefer, which was full or down.",
            ("model", "preferred", "pool"),
            registry=registry,
        )

    def _create_settlement_metrics(self, registry: CollectorRegistry | None) -> None:
        self._settlements = Counter(
            "tokenpool_settlements_total",
            "Leases settled, by where the charge came from.",
            ("model", "source"),
            registry=registry,
        )
        self._settled_tokens = Counter(
            "tokenpool_settled_tokens_total",
            "Tokens charged at settlement.",
            ("model", "entitlement", "pool", "kind"),
            registry=registry,
        )
        self._estimated_tokens = Counter(
            "tokenpool_estimated_tokens_total",
            "The part of the settled tokens that was charged by rule, since no server reported usage.",
            ("model", "entitlement"),
            registry=registry,
        )
        self._estimate_error_ratio = Histogram(
            "tokenpool_estimate_error_ratio",
            "Error of the prompt estimate: |estimate - actual| / actual tokens, where the server reported usage.",
            ("model", "category"),
            registry=registry,
            buckets=_RATIO_BUCKETS,
        )
        self._misroutes = Counter(
            "tokenpool_misroutes_total",
            "Requests that the picked pool was too small for: it refused them (400), or cut their answers short.",
            ("model", "kind"),
            registry=registry,
        )
        self._leases_expired = Counter(
            "tokenpool_leases_expired_total",
            "Leases reclaimed at their deadline, since no access-log entry settled them.",
            ("model",),
            registry=registry,
        )

    def _create_log_metrics(self, registry: CollectorRegistry | None) -> None:
        self.request_log_lost = Counter(
            "tokenpool_request_log_lost_total",
            "Lines that could not be written to the request log.",
            registry=registry,
        )

    def _create_ledger_metrics(self, registry: CollectorRegistry | None) -> None:
        self._ledger_seconds = Histogram(
            "tokenpool_ledger_seconds",
            "Duration of one round trip to Redis.",
            ("operation",),
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self._ledger_requests_per_call = Histogram(
            "tokenpool_ledger_requests_per_call",
            "Requests that shared one round trip to Redis.",
            ("operation",),
            registry=registry,
            buckets=_BATCH_BUCKETS,
        )
        self._ledger_failures = Counter(
            "tokenpool_ledger_failures_total",
            "Round trips to Redis that failed or took too long.",
            ("operation",),
            registry=registry,
        )

    def _create_gen_ai_metrics(self, registry: CollectorRegistry | None) -> None:
        self._token_usage = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of one request as the server reported them.",
            ("gen_ai_request_model", "gen_ai_token_type"),
            registry=registry,
            buckets=_GEN_AI_TOKEN_BUCKETS,
        )
        self._ttft = Histogram(
            "gen_ai_server_time_to_first_token",
            "Seconds until the first byte of the answer.",
            ("gen_ai_request_model",),
            registry=registry,
            buckets=_GEN_AI_TTFT_BUCKETS,
        )
        self._duration = Histogram(
            "gen_ai_server_request_duration",
            "Seconds until the end of the answer.",
            ("gen_ai_request_model", "error_type"),
            registry=registry,
            buckets=_GEN_AI_DURATION_BUCKETS,
        )

    def _verdict_series(self, key: tuple[str, ...]) -> VerdictSeries:
        model, entitlement, service_class, pool, verdict, reason = key
        model = self._bounded("model", model)
        entitlement = self._bounded("entitlement", entitlement)
        pool = self._bounded("pool", pool)
        return VerdictSeries(
            count=self._verdicts.labels(model, entitlement, service_class, pool, verdict, reason),
            seconds=self._verdict_seconds.labels(model, verdict),
        )

    def _preempted_series(self, key: tuple[str, ...]) -> Counter:
        model, entitlement, service_class = key
        return self._preempted.labels(
            self._bounded("model", model), self._bounded("entitlement", entitlement), service_class
        )

    def _spilled_series(self, key: tuple[str, ...]) -> Counter:
        model, *pools = key
        return self._spilled.labels(self._bounded("model", model), *(self._bounded("pool", pool) for pool in pools))

    def _settlement_series(self, key: tuple[str, ...]) -> SettlementSeries:
        model, entitlement, pool, category, source = key
        model = self._bounded("model", model)
        entitlement = self._bounded("entitlement", entitlement)
        pool = self._bounded("pool", pool)
        return SettlementSeries(
            count=self._settlements.labels(model, source),
            prompt_tokens=self._settled_tokens.labels(model, entitlement, pool, "prompt"),
            completion_tokens=self._settled_tokens.labels(model, entitlement, pool, "completion"),
            estimated_tokens=self._estimated_tokens.labels(model, entitlement),
            estimate_error_ratio=self._estimate_error_ratio.labels(model, self._bounded("category", category)),
            refused_by_pool=self._misroutes.labels(model, "refused"),
            truncated=self._misroutes.labels(model, "truncated"),
            leases_expired=self._leases_expired.labels(model),
            input_usage=self._token_usage.labels(model, "input"),
            output_usage=self._token_usage.labels(model, "output"),
            ttft_seconds=self._ttft.labels(model),
        )

    def _request_duration(self, key: tuple[str, ...]) -> Histogram:
        model, error_type = key
        return self._duration.labels(self._bounded("model", model), self._bounded("error_type", error_type))

    def _ledger_series(self, key: tuple[str, ...]) -> LedgerSeries:
        operation = self._bounded("operation", key[0])
        return LedgerSeries(
            seconds=self._ledger_seconds.labels(operation),
            requests_per_call=self._ledger_requests_per_call.labels(operation),
            failures=self._ledger_failures.labels(operation),
        )


class Cached(Generic[S]):
    """What `find` gives for a key, kept for up to MAX_CACHED keys: `labels()` costs more than the count itself."""

    def __init__(self, find: Callable[[tuple[str, ...]], S]) -> None:
        self._find = find
        self._found: dict[tuple[str, ...], S] = {}

    def __call__(self, key: tuple[str, ...]) -> S:
        found = self._found.get(key)
        if found is None:
            found = self._find(key)
            if len(self._found) < MAX_CACHED:
                self._found[key] = found
        return found
