"""What is legal but doubtful."""

from __future__ import annotations

import pytest

from extproc.config import parse, warnings

BASE = """
identity: {header: x-tenant}
models:
  - name: m
    pools:
      short:
        endpoints: [sim://]
        max_model_len: 8192
        capacity: {tokens_per_second: 2400, kv_tokens: 262144, concurrency: 64}
      long:
        endpoints: [sim://]
        max_model_len: 65536
        capacity: {tokens_per_second: 900, kv_tokens: 524288, concurrency: 16}
    routing: {spill: true}
entitlements:
  - {name: g, model: m, class: guaranteed, tokens_per_second: 800, kv_tokens: 60000, concurrency: 12}
  - {name: e, model: m, class: elastic, tokens_per_second: 500, kv_tokens: 60000, concurrency: 16}
"""

CASES = {
    "nothing": ("", "", ()),
    "elastic-too-much": (
        "tokens_per_second: 500",
        "tokens_per_second: 2501",
        ("model m: with the elastic entitlements 3301 tokens_per_second are promised, but its pools have 3300",),
    ),
    "one-pool-alone": (
        "tokens_per_second: 800",
        "tokens_per_second: 1200",
        ("model m: in pool long only 900 of 1200 promised tokens_per_second can be honoured for long requests",),
    ),
    "pool-kept-free-for-others": (
        "kv_tokens: 60000, concurrency: 12",
        "kv_tokens: 60000, concurrency: 16",
        (
            (
                "model m: elastic requests will never be served by pool long: "
                "dedicated and guaranteed bases keep all of its concurrency free"
            ),
        ),
    ),
    "threshold-above-the-short-pool": (
        "{spill: true}",
        "{threshold_tokens: 16384}",
        ("model m: routing.threshold_tokens 16384 is more than pool short takes; its max_model_len 8192 decides",),
    ),
    "a-pool-that-nobody-prefers": (
        "max_model_len: 65536",
        "max_model_len: 8192",
        ("model m: no request will prefer pool long: shorter pools take up to 8192 tokens, it takes 8192",),
    ),
    "cache-too-small": (
        "kv_tokens: 524288",
        "kv_tokens: 60001",
        ("model m: a server of pool long holds 60001 kv_tokens, less than one request of its max_model_len 65536",),
    ),
    "kv-cap-too-small": (
        "kv_tokens: 60000, concurrency: 12}\n  - {name: e",
        "kv_tokens: 1023, concurrency: 12}\n  - {name: e",
        ("entitlement g: its cap of 1023 kv_tokens cannot hold one request of 1024 tokens",),
    ),
    "bucket-too-small": (
        "tokens_per_second: 500",
        "tokens_per_second: 102",
        (
            (
                "entitlement e: it can save up 1020 tokens (102 tokens_per_second for 10 seconds), "
                "too few for one request of 1024"
            ),
        ),
    ),
    "no-way-in": (
        "identity: {header: x-tenant}",
        "",
        (
            "entitlement g: it has no keys, and there is no identity: nobody can use it",
            "entitlement e: it has no keys, and there is no identity: nobody can use it",
        ),
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_a_doubtful_configuration_is_warned_about(old: str, new: str, expected: tuple[str, ...]) -> None:
    assert old in BASE
    assert warnings(parse(BASE.replace(old, new, 1), "x")) == expected


SURPLUS = """
  - {name: s, model: m, class: spot, tokens_per_second: 500, kv_tokens: 50000, concurrency: 4}
  - {name: p, model: m, class: preemptible, tokens_per_second: 500, kv_tokens: 50000, concurrency: 4}
"""
NONE_LENT = "routing: {spill: true}\n    sharing: {lend_to_spot: false}"


def kept_out(changes: dict[str, str]) -> list[str]:
    """Who is never served by the long pool where spot and preemptible entitlements are added, and why."""
    text = BASE.rstrip() + SURPLUS
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    found = [doubt.partition(" requests will never be served by pool long: ") for doubt in warnings(parse(text, "x"))]
    return [f"{who.removeprefix('model m: ')}: {why}" for who, _, why in found if why]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        (
            {"kv_tokens: 60000, concurrency: 12": "kv_tokens: 60000, concurrency: 16"},
            ["elastic: dedicated and guaranteed bases keep all of its concurrency free"],
        ),
        (
            {
                "kv_tokens: 60000, concurrency: 12": "kv_tokens: 524288, concurrency: 12",
                "routing: {spill: true}": NONE_LENT,
            },
            ["elastic and spot: dedicated and guaranteed bases keep all of its kv_tokens free"],
        ),
        (
            {"kv_tokens: 60000, concurrency: 12": "kv_tokens: 60000, concurrency: 16"}
            | {"routing: {spill: true}": "sharing: {headroom_requests: 16}"},
            [
                "elastic: dedicated and guaranteed bases keep all of its concurrency free",
                (
                    "spot and preemptible: dedicated bases and the head-room of guaranteed ones "
                    "keep all of its concurrency free"
                ),
            ],
        ),
        (
            {"class: guaranteed, tokens_per_second: 800": "class: dedicated, tokens_per_second: 900"},
            [
                "elastic: dedicated and guaranteed bases keep all of its tokens_per_second free",
                "spot and preemptible: dedicated bases keep all of its tokens_per_second free",
            ],
        ),
        (
            {
                "class: guaranteed": "class: dedicated",
                "kv_tokens: 60000, concurrency: 12": "kv_tokens: 60000, concurrency: 16",
                "class: elastic": "class: guaranteed",
            },
            [
                "guaranteed: dedicated bases keep all of its concurrency free",
                (
                    "spot and preemptible: dedicated bases and the head-room of guaranteed ones "
                    "keep all of its concurrency free"
                ),
            ],
        ),
    ],
    ids=[
        "nobody",
        "idle guaranteed bases are lent to spot and preemptible",
        "unless they are not lent to spot",
        "nor is the head-room",
        "a dedicated rate is set aside",
        "dedicated bases are kept from guaranteed ones too",
    ],
)
def test_who_is_never_served_by_a_pool_is_told(changes: dict[str, str], expected: list[str]) -> None:
    assert kept_out(changes) == expected


def test_without_spilling_the_short_pool_alone_must_keep_the_promises_too() -> None:
    text = BASE.replace("spill: true", "spill: false").replace("concurrency: 64", "concurrency: 8")
    assert warnings(parse(text, "x")) == (
        "model m: with the elastic entitlements 28 concurrency are promised, but its pools have 24",
        "model m: in pool short only 8 of 12 promised concurrency can be honoured for short requests",
        (
            "model m: elastic requests will never be served by pool short: "
            "dedicated and guaranteed bases keep all of its concurrency free"
        ),
    )


def test_a_file_without_entitlements_is_warned_about() -> None:
    text = BASE[: BASE.index("entitlements:")]
    assert warnings(parse(text, "x")) == ("there are no entitlements: every request will be refused",)
