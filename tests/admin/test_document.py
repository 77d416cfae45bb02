from __future__ import annotations

import json

from extproc.admin import document
from extproc.core.policy import Entitlement, Model, Policy, Pool, ServiceClass, Vector
from extproc.ledger import EntitlementState, ModelState, PoolState

SERVER = Vector(tokens_per_second=1000, kv_tokens=100_000, concurrency=32)
IDLE = {"tokens_per_second": 0, "kv_tokens": 0, "concurrency": 0}
POLICY = Policy(
    models=(
        Model("llama", (Pool("short", ("http://a:1", "http://a:2"), 8192, SERVER),)),
        Model("qwen", (Pool("default", ("http://b:1",), 8192, SERVER),)),
    ),
    entitlements=(
        Entitlement("acme", "llama", ServiceClass.GUARANTEED, Vector(100, 5000, 4), Vector(200, 9000, 8)),
        Entitlement("other", "qwen", ServiceClass.SPOT, Vector(), Vector(50, 1000, 1)),
    ),
)
LLAMA = ModelState(
    pools={"short": PoolState(Vector(30, 900, 2), servers=1, desired=3)},
    entitlements={
        "acme": EntitlementState(
            *(Vector(20, 600, 1), Vector(0, 700, 3), -40, 11, 22),
            share=Vector(150, 6000, 5),
            cap=Vector(180, 8000, 7),
            debt=0.25,
            weight=6.5,
            waiting=4,
        )
    },
    leases=2,
    bytes_per_token={"prose": 4.4},
)


def test_a_pool_shows_what_its_live_servers_give_what_is_held_and_how_many_there_should_be() -> None:
    pools = document(POLICY, {"llama": LLAMA}, degraded=False)["models"]["llama"]["pools"]
    assert pools == {
        "short": {
            "capacity": {"tokens_per_second": 1000, "kv_tokens": 100_000, "concurrency": 32},
            "in_use": {"tokens_per_second": 30, "kv_tokens": 900, "concurrency": 2},
            "servers": 1,
            "desired": 3,
        }
    }


def test_a_pool_with_no_live_server_gives_nothing() -> None:
    none = ModelState(pools={"short": PoolState(Vector(), servers=0, desired=2)})
    pool = document(POLICY, {"llama": none}, degraded=False)["models"]["llama"]["pools"]["short"]
    assert (pool["servers"], pool["capacity"]) == (0, IDLE)


def test_before_the_first_tick_all_servers_count_and_shares_are_what_was_promised() -> None:
    model = document(POLICY, {}, degraded=False)["models"]["llama"]
    pool, acme = model["pools"]["short"], model["entitlements"]["acme"]
    assert (pool["servers"], pool["capacity"]["concurrency"], pool["desired"]) == (2, 64, None)
    assert (acme["share"], acme["cap"], acme["debt"]) == (acme["base"], acme["burst"], 0)


def test_an_entitlement_shows_what_was_promised_beside_what_was_used() -> None:
    entitlements = document(POLICY, {"llama": LLAMA}, degraded=False)["models"]["llama"]["entitlements"]
    assert entitlements == {
        "acme": {
            "class": "guaranteed",
            "base": {"tokens_per_second": 100, "kv_tokens": 5000, "concurrency": 4},
            "burst": {"tokens_per_second": 200, "kv_tokens": 9000, "concurrency": 8},
            "share": {"tokens_per_second": 150, "kv_tokens": 6000, "concurrency": 5},
            "cap": {"tokens_per_second": 180, "kv_tokens": 8000, "concurrency": 7},
            "in_use": {"tokens_per_second": 20, "kv_tokens": 600, "concurrency": 1},
            "peak": {"tokens_per_second": 0, "kv_tokens": 700, "concurrency": 3},
            "balance_tokens": -40,
            "settled": {"prompt": 11, "completion": 22},
            "debt": 0.25,
            "weight": 6.5,
            "waiting": 4,
        }
    }


def test_a_model_shows_its_leases_and_learned_ratios() -> None:
    model = document(POLICY, {"llama": LLAMA}, degraded=False)["models"]["llama"]
    assert (model["leases"], model["bytes_per_token"]) == (2, {"prose": 4.4})


def test_a_model_that_nobody_used_yet_is_idle_with_full_buckets() -> None:
    model = document(POLICY, {"llama": LLAMA}, degraded=False)["models"]["qwen"]
    assert model["leases"] == 0
    assert model["pools"]["default"]["in_use"] == IDLE
    assert model["entitlements"]["other"]["in_use"] == IDLE
    assert model["entitlements"]["other"]["balance_tokens"] == 500


def test_what_the_policy_no_longer_names_is_left_out() -> None:
    stale = ModelState(entitlements={"gone": EntitlementState(Vector(), Vector(), 0)})
    shown = document(POLICY, {"llama": stale, "gone": LLAMA}, degraded=False)
    assert list(shown["models"]) == ["llama", "qwen"]
    assert list(shown["models"]["llama"]["entitlements"]) == ["acme"]


def test_the_document_is_json_and_says_whether_it_is_degraded() -> None:
    assert json.loads(json.dumps(document(POLICY, {}, degraded=True)))["degraded"] is True
