from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from extproc.core.observed import Settled
from extproc.telemetry import Telemetry
from extproc.telemetry.metrics import MAX_CACHED, BoundedNames, Cached
from tests.telemetry.facts import ADMITTED, SETTLED, UNAUTHORIZED

MODEL = {"model": "llama"}
TENANT = {"model": "llama", "entitlement": "acme"}
SOURCES = [
    pytest.param(SETTLED, 0.0, id="usage"),
    pytest.param(replace(SETTLED, source="estimated"), 500.0, id="estimated"),
    pytest.param(replace(SETTLED, source="nothing", prompt_tokens=0, completion_tokens=0), 0.0, id="nothing"),
    pytest.param(replace(SETTLED, source="expired"), 500.0, id="expired"),
]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def telemetry(registry: CollectorRegistry) -> Telemetry:
    return Telemetry(registry)


def test_an_admitted_request_is_counted_with_all_its_names(telemetry: Telemetry, registry: CollectorRegistry) -> None:
    telemetry.decided(ADMITTED)
    telemetry.decided(ADMITTED)
    labels = {**TENANT, "class": "guaranteed", "pool": "short", "verdict": "admit", "reason": ""}
    assert registry.get_sample_value("tokenpool_verdicts_total", labels) == 2


def test_a_verdict_that_waited_for_room_is_timed_too(telemetry: Telemetry, registry: CollectorRegistry) -> None:
    telemetry.decided(replace(ADMITTED, seconds=20.0))
    labels = {**MODEL, "verdict": "admit"}
    assert registry.get_sample_value("tokenpool_verdict_seconds_bucket", {**labels, "le": "10.0"}) == 0
    assert registry.get_sample_value("tokenpool_verdict_seconds_bucket", {**labels, "le": "30.0"}) == 1


def test_a_refusal_before_any_name_is_known_is_counted_by_reason(
    telemetry: Telemetry, registry: CollectorRegistry
) -> None:
    telemetry.decided(UNAUTHORIZED)
    names = dict.fromkeys(("model", "entitlement", "class", "pool"), "")
    labels = {**names, "verdict": "refuse", "reason": "unauthorized"}
    assert registry.get_sample_value("tokenpool_verdicts_total", labels) == 1


def test_verdict_time_falls_into_its_bucket(telemetry: Telemetry, registry: CollectorRegistry) -> None:
    telemetry.decided(replace(ADMITTED, seconds=0.0004))
    labels = {**MODEL, "verdict": "admit"}
    assert registry.get_sample_value("tokenpool_verdict_seconds_bucket", {**labels, "le": "0.00025"}) == 0
    assert registry.get_sample_value("tokenpool_verdict_seconds_bucket", {**labels, "le": "0.0005"}) == 1


def test_ended_requests_are_counted_by_tenant(telemetry: Telemetry, registry: CollectorRegistry) -> None:
    telemetry.preempted("llama", "acme", "preemptible")
    assert registry.get_sample_value("tokenpool_preempted_total", {**TENANT, "class": "preemptible"}) == 1


@pytest.mark.parametrize(("kind", "tokens"), [("prompt", 200), ("completion", 300)])
def test_settled_tokens_are_counted_by_kind(
    telemetry: Telemetry, registry: CollectorRegistry, kind: str, tokens: int
) -> None:
    telemetry.settled(SETTLED)
    labels = {**TENANT, "pool": "short", "kind": kind}
    assert registry.get_sample_value("tokenpool_settled_tokens_total", labels) == tokens


@pytest.mark.parametrize(("fact", "tokens"), SOURCES)
def test_tokens_charged_by_rule_are_counted_apart(
    telemetry: Telemetry, registry: CollectorRegistry, fact: Settled, tokens: float
) -> None:
    telemetry.settled(fact)
    assert registry.get_sample_value("tokenpool_estimated_tokens_total", TENANT) == tokens


@pytest.mark.parametrize("fact", [fact.values[0] for fact in SOURCES], ids=lambda fact: fact.source)
def test_settlements_are_counted_by_source(telemetry: Telemetry, registry: CollectorRegistry, fact: Settled) -> None:
    telemetry.settled(fact)
    assert registry.get_sample_value("tokenpool_settlements_total", {**MODEL, "source": fact.source}) == 1


def test_the_estimate_error_is_relative_to_what_the_server_counted(
    telemetry: Telemetry, registry: CollectorRegistry
) -> None:
    telemetry.settled(replace(SETTLED, prompt_estimate=250, prompt_tokens=200))
    labels = {**MODEL, "category": "prose"}
    assert registry.get_sample_value("tokenpool_estimate_error_ratio_sum", labels) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "fact", [replace(SETTLED, source="estimated"), replace(SETTLED, prompt_tokens=0)], ids=["no usage", "empty prompt"]
)
def test_no_estimate_error_without_a_count_to_compare_with(
    telemetry: Telemetry, registry: CollectorRegistry, fact: Settled
) -> None:
    telemetry.settled(fact)
    labels = {**MODEL, "category": "prose"}
    assert registry.get_sample_value("tokenpool_estimate_error_ratio_count", labels) == 0


@pytest.mark.parametrize(
    ("fact", "refused", "truncated"),
    [
        pytest.param(SETTLED, 0, 0, id="none"),
        pytest.param(replace(SETTLED, misrouted=True), 1, 0, id="the server refused it"),
        pytest.param(replace(SETTLED, truncated=True), 0, 1, id="the server cut it short"),
    ],
)
def test_misroutes_are_counted_by_kind(
    telemetry: Telemetry, registry: CollectorRegistry, fact: Settled, refused: int, truncated: int
) -> None:
    telemetry.settled(fact)
    assert registry.get_sample_value("tokenpool_misroutes_total", {**MODEL, "kind": "refused"}) == refused
    assert registry.get_sample_value("tokenpool_misroutes_total", {**MODEL, "kind": "truncated"}) == truncated


def test_a_request_that_another_pool_took_has_spilled(telemetry: Telemetry, registry: CollectorRegistry) -> None:
    telemetry.decided(ADMITTED)
    telemetry.decided(replace(ADMITTED, pool="long"))
    telemetry.decided(UNAUTHORIZED)
    labels = {**MODEL, "preferred": "short", "pool": "long"}
    assert registry.get_sample_value("tokenpool_spilled_total", labels) == 1
    assert registry.get_sample_value("tokenpool_spilled_total", {**labels, "pool": "short"}) is None


def test_expired_leases_are_counted_but_not_timed(telemetry: Telemetry, registry: CollectorRegistry) -> None:
    telemetry.settled(replace(SETTLED, source="expired", status=0))
    assert registry.get_sample_value("tokenpool_leases_expired_total", MODEL) == 1
    assert not [m for m in registry.collect() if m.name == "gen_ai_server_request_duration" and m.samples]


@pytest.mark.parametrize(("token_type", "tokens"), [("input", 200), ("output", 300)])
def test_reported_usage_follows_the_gen_ai_conventions(
    telemetry: Telemetry, registry: CollectorRegistry, token_type: str, tokens: int
) -> None:
    telemetry.settled(SETTLED)
    labels = {"gen_ai_request_model": "llama", "gen_ai_token_type": token_type}
    assert registry.get_sample_value("gen_ai_client_token_usage_sum", labels) == tokens
    assert registry.get_sample_value("gen_ai_client_token_usage_bucket", {**labels, "le": "6.7108864e+07"}) == 1


@pytest.mark.parametrize(("status", "error_type"), [(200, ""), (400, "400"), (503, "503"), (0, "client_gone")], ids=str)
def test_durations_are_told_apart_by_error(
    telemetry: Telemetry, registry: CollectorRegistry, status: int, error_type: str
) -> None:
    telemetry.settled(replace(SETTLED, status=status))
    labels = {"gen_ai_request_model": "llama", "error_type": error_type}
    assert registry.get_sample_value("gen_ai_server_request_duration_sum", labels) == 2.5


def test_time_to_first_token_is_recorded_only_where_there_was_one(
    telemetry: Telemetry, registry: CollectorRegistry
) -> None:
    telemetry.settled(SETTLED)
    telemetry.settled(replace(SETTLED, ttft_seconds=None))
    labels = {"gen_ai_request_model": "llama"}
    assert registry.get_sample_value("gen_ai_server_time_to_first_token_count", labels) == 1


def test_a_round_trip_is_recorded_with_its_time_and_size(telemetry: Telemetry, registry: CollectorRegistry) -> None:
    telemetry.ledger_call("admit", 5, 0.002)
    labels = {"operation": "admit"}
    assert registry.get_sample_value("tokenpool_ledger_seconds_sum", labels) == 0.002
    assert registry.get_sample_value("tokenpool_ledger_requests_per_call_sum", labels) == 5


def test_a_failed_round_trip_is_counted(telemetry: Telemetry, registry: CollectorRegistry) -> None:
    telemetry.ledger_failed("settle")
    assert registry.get_sample_value("tokenpool_ledger_failures_total", {"operation": "settle"}) == 1


def test_names_beyond_the_limit_are_counted_together(registry: CollectorRegistry) -> None:
    telemetry = Telemetry(registry, max_names=2)
    for entitlement in ("a", "b", "c", "d"):
        telemetry.decided(replace(ADMITTED, entitlement=entitlement))
    labels = {**MODEL, "class": "guaranteed", "pool": "short", "verdict": "admit", "reason": ""}
    assert registry.get_sample_value("tokenpool_verdicts_total", {**labels, "entitlement": "b"}) == 1
    assert registry.get_sample_value("tokenpool_verdicts_total", {**labels, "entitlement": "other"}) == 2


@given(limit=st.integers(0, 5), names=st.lists(st.text(max_size=3)))
def test_a_label_never_has_more_values_than_its_limit_other_and_empty(limit: int, names: list[str]) -> None:
    bounded = BoundedNames(limit)
    assert len({bounded(name) for name in names} - {"other", ""}) <= limit


def test_the_cache_of_series_stays_bounded() -> None:
    cached = Cached(lambda key: key)
    for number in range(MAX_CACHED + 10):
        assert cached((str(number),)) == (str(number),)
    assert len(cached._found) == MAX_CACHED
