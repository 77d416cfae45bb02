from __future__ import annotations

import json
from pathlib import Path

import pytest

from extproc.config import load
from extproc.core.policy import ServiceClass, Vector
from extproc.core.settings import Settings
from extproc.scenario import fair_share, overload
from extproc.scenario.configuration import Fleet, Tenant, Terms, document, server_url
from extproc.scenario.running import Plan
from extproc.sim.options import options_from_url

TENANT = Tenant("one", ServiceClass.ELASTIC, 5, burst_slots=8, slo_seconds=0.5, max_wait_seconds=0.35)
PLANS = (*overload.plans(60, 0), *fair_share.plans(60))


def settings(terms: Terms, speed: float, folder: Path) -> Settings:
    path = folder / "tokenpool.yaml"
    endpoints = [f"http://127.0.0.1:{9000 + index}" for index in range(terms.fleet.servers)]
    path.write_text(json.dumps(document(terms, endpoints, speed)))
    return load(path)


@pytest.mark.parametrize("speed", [1, 20])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_what_a_run_writes_is_a_configuration(plan: Plan, speed: float, tmp_path: Path) -> None:
    policy = settings(plan.terms, speed, tmp_path).policy
    assert [one.name for one in policy.entitlements] == [tenant.name for tenant in plan.terms.tenants]


def test_times_are_divided_by_the_speed_and_rates_multiplied(tmp_path: Path) -> None:
    found = settings(Terms(Fleet(2, 8), (TENANT,), headroom_requests=1), 10, tmp_path)
    [model], [tenant] = found.policy.models, found.policy.entitlements
    assert found.tick_ms == 100
    assert (model.sharing.debt_seconds, model.sharing.slo_reference_ms) == (3.0, 100)
    assert (tenant.slo_ttft_ms, tenant.max_wait_ms, tenant.window_seconds) == (50, 35, 1)
    assert tenant.base == Vector(1000, 5 * 4096, 5)
    assert tenant.caps == Vector(1600, 8 * 4096, 8)
    assert model.capacity == Vector(3200, 16 * 4096, 16)


def test_without_admission_nothing_that_clients_could_send_is_refused(tmp_path: Path) -> None:
    terms = Terms(Fleet(1, 16), (TENANT, Tenant("two", ServiceClass.SPOT, 16)), headroom_requests=0, limited=False)
    policy = settings(terms, 20, tmp_path).policy
    for tenant in policy.entitlements:
        assert tenant.service_class.promised
        assert tenant.base.concurrency >= 50_000
        assert tenant.base.tokens_per_second >= 10 * 20 * overload.SPOT_PER_SECOND * 1.5 * overload.SPOT_TOKENS


def test_a_server_gives_each_slot_fifteen_tokens_a_second() -> None:
    capacity = Vector(kv_tokens=100_000, concurrency=16)
    options = options_from_url(server_url(Fleet(1, 16)), model="m", max_model_len=4096, capacity=capacity)
    assert options.slots.max_num_seqs * 1000 / options.timing.decode_step_ms(16) == pytest.approx(240)
    assert options.timing.decode_step_ms(1) == options.timing.decode_step_ms(16)
