"""A good file becomes exactly these values."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from extproc.config import ConfigError, load, parse, warnings
from extproc.core.policy import (
    Cost,
    Entitlement,
    FailMode,
    MarketTerms,
    MediaTokens,
    Model,
    Policy,
    Pool,
    Prioritise,
    Reserve,
    Routing,
    Scaling,
    ServiceClass,
    Sharing,
    StreamUsage,
    Vector,
)
from extproc.core.settings import Identity, Settings, Tracing

HERE = Path(__file__).parent
GOOD = HERE / "good"
EXAMPLE = HERE.parent.parent / "tokenpool.yaml"


def test_every_key_reaches_the_settings() -> None:
    name = "meta-llama/Llama-3-8B"
    model = Model(
        name=name,
        pools=(
            Pool("short", ("sim://", "sim://?speed=10&seed=1"), 8192, Vector(2400, 262144, 64), 5000),
            Pool("long", ("https://[::1]:8443", "sim://"), 65536, Vector(900, 524288, 16)),
        ),
        aliases=("llama", "llama:latest"),
        routing=Routing(threshold_tokens=6000, sigmas=3.0, spill=False),
        stream_usage=StreamUsage.PASS,
        reserve=Reserve.MAX_TOKENS,
        cost=Cost(prompt=1.0, cached_prompt=0.1, completion=4.0),
        media=MediaTokens(image=576, audio=0),
        sharing=Sharing(
            lend_to_spot=False,
            headroom_requests=3,
            elastic_weight=8.0,
            spot_weight=2.0,
            preemptible_weight=0.25,
            slo_reference_ms=2000,
            slo_exponent=0.5,
            overuse_discount=0.0,
            debt_seconds=10.0,
            debt_gain=1.5,
        ),
        scaling=Scaling(target_utilisation=0.7, scale_down_seconds=60),
    )
    chat = Entitlement(
        name="acme-chat",
        model=name,
        service_class=ServiceClass.GUARANTEED,
        base=Vector(800, 60000, 16),
        caps=Vector(1200, 90000, 16),
        window_seconds=20,
        key_hashes=("sha256:" + "a" * 64, "sha256:" + "b" * 64),
        slo_ttft_ms=500,
        max_wait_ms=1500,
        max_waiting=7,
        prioritise=Prioritise.LARGER,
        market=MarketTerms(price_elasticity=0.5, budget=100.0, period_seconds=3600),
    )
    batch = Entitlement("batch", name, ServiceClass.SPOT, base=Vector(), caps=Vector(500, 50000, 12))
    assert load(GOOD / "full.yaml") == Settings(
        policy=Policy((model,), (chat, batch)),
        redis="redis+sentinel://127.0.0.1:26379/mymaster",
        identity=Identity(metadata_namespace="envoy.filters.http.jwt_authn", metadata_key="tenant"),
        fail=FailMode.OPEN,
        tracing=Tracing("jaeger:4317", 12.5),
        max_body_bytes=1048576,
        request_timeout_seconds=60,
        redis_timeout_ms=20,
        tick_ms=500,
    )


def test_what_is_left_out_has_the_defaults_of_the_core() -> None:
    pool = Pool("default", ("http://vllm_0:8000",), 4096, Vector(1000, 100000, 8))
    model = Model("m", (pool,), routing=Routing(threshold_tokens=4096))  # no more than the longest pool takes
    assert load(GOOD / "minimal.yaml") == Settings(policy=Policy((model,), ()))


def test_merge_keys_fill_in_what_a_mapping_does_not_say() -> None:
    policy = load(GOOD / "merged.yaml").policy
    assert [(model.name, model.max_model_len) for model in policy.models] == [("m", 8192), ("n", 4096)]
    assert [(item.name, item.model, item.window_seconds) for item in policy.entitlements] == [
        ("red", "m", 5),
        ("blue", "n", 5),
    ]


@pytest.mark.parametrize(
    ("service_class", "has_base"),
    [("dedicated", True), ("guaranteed", True), ("elastic", True), ("spot", False), ("preemptible", False)],
)
def test_only_the_promising_classes_have_a_base(service_class: str, has_base: bool) -> None:
    text = (GOOD / "full.yaml").read_text().replace("keys_file: acme.keys", "").replace("guaranteed", service_class)
    entitlement = parse(text, "x").policy.entitlements[0]
    assert entitlement.base == (Vector(800, 60000, 16) if has_base else Vector())
    assert entitlement.caps == Vector(1200, 90000, 16)


def test_one_key_may_serve_several_models() -> None:
    text = (GOOD / "merged.yaml").read_text().replace("burst: {seconds: 5}", f'keys: ["sha256:{"a" * 64}"]')
    assert [len(item.key_hashes) for item in parse(text, "x").policy.entitlements] == [1, 1]


def test_a_keys_file_is_looked_for_beside_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(load(GOOD / "full.yaml").policy.entitlements[0].key_hashes) == 2
    with pytest.raises(ConfigError, match=r"keys_file: cannot be read: 'acme\.keys'"):
        parse((GOOD / "full.yaml").read_text(), "full.yaml")


@pytest.mark.parametrize(
    "url",
    ["redis://:secret@h:6379/0", "rediss://h", "unix:///run/redis.sock?db=1", "redis+sentinel://a:1,b:2/m/0",
     "redis+cluster://a:1,b:2"],
)  # fmt: skip
def test_each_kind_of_redis_url_is_taken(url: str) -> None:
    assert parse(f"redis: {url}\n" + (GOOD / "minimal.yaml").read_text(), "x").redis == url


def test_an_identity_header_is_taken() -> None:
    text = "identity: {header: x-tenant}\n" + (GOOD / "minimal.yaml").read_text()
    assert parse(text, "x").identity == Identity(header="x-tenant")


def test_the_example_loads_without_warnings() -> None:
    assert warnings(load(EXAMPLE)) == ()


@pytest.mark.parametrize(
    ("key", "entitlement"),
    [
        ("sk-tokenpool-demo", "acme-chat"),
        ("sk-tokenpool-elastic", "globex-search"),
        ("sk-tokenpool-spot", "nightly-batch"),
        ("sk-tokenpool-tiny", "tiny-trial"),
    ],
)
def test_the_example_knows_the_demo_keys(key: str, entitlement: str) -> None:
    digest = "sha256:" + sha256(key.encode()).hexdigest()
    assert [item.name for item in load(EXAMPLE).policy.entitlements if digest in item.key_hashes] == [entitlement]
