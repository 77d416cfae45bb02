from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from extproc.core.policy import FailMode, Model, Policy, Pool, StreamUsage, Vector
from extproc.core.settings import Identity, Settings, Tracing
from extproc.envoy_config import Deployment, SimulatedServer, UnknownServerError, dump, static_config, write_xds
from tests.envoy.conftest import two_pools
from tests.envoy.running import validate

SIDECARS = Deployment(("127.0.0.1:50051", "127.0.0.1:50052"))
TWO_POOLS = Settings(two_pools("http://127.0.0.1:8101", "http://127.0.0.1:8102"))


def single_pool(name: str, *endpoints: str) -> Model:
    return Model(name, (Pool("default", endpoints, 8192, Vector(1000, 100_000, 16)),))


THREE_MODELS = Settings(
    Policy(
        (
            *TWO_POOLS.policy.models,
            single_pool("org/other:8b", "http://127.0.0.1:1", "http://[::1]:2"),
            replace(single_pool("third", "http://vllm.example:8000"), stream_usage=StreamUsage.PASS),
        ),
        (),
    )
)
SIMULATED = Settings(Policy((single_pool("s", "sim://a", "sim://b"),), ()))

VALID = {
    "two pools": (TWO_POOLS, SIDECARS),
    "three models": (THREE_MODELS, SIDECARS),
    "single pool": (Settings(Policy((single_pool("one", "http://127.0.0.1:1"),), ())), SIDECARS),
    "unix sockets": (TWO_POOLS, Deployment(("unix:/tmp/a.sock", "unix:/tmp/b.sock"))),
    "sidecar by name": (TWO_POOLS, Deployment(("sidecar:50051",))),
    "https": (Settings(Policy((single_pool("t", "https://gpu.example", "http://10.0.0.1:8000"),), ())), SIDECARS),
    "tracing": (replace(TWO_POOLS, tracing=Tracing("jaeger:4317", 12.5)), SIDECARS),
    "fail open": (replace(TWO_POOLS, fail=FailMode.OPEN), SIDECARS),
    "fail open, three models": (replace(THREE_MODELS, fail=FailMode.OPEN), SIDECARS),
    "identity by header": (replace(TWO_POOLS, identity=Identity(header="X-Tenant")), SIDECARS),
    "identity by metadata": (
        replace(TWO_POOLS, identity=Identity(metadata_namespace="envoy.filters.http.jwt_authn", metadata_key="sub")),
        SIDECARS,
    ),
    "simulated servers": (
        SIMULATED,
        replace(
            SIDECARS,
            endpoints={
                SimulatedServer("s", "default", 0): "http://127.0.0.1:9001",
                SimulatedServer("s", "default", 1): "http://127.0.0.1:9002",
            },
        ),
    ),
}


@pytest.mark.parametrize(("settings", "deployment"), VALID.values(), ids=VALID.keys())
def test_envoy_accepts_the_static_configuration(settings: Settings, deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(dump(static_config(settings, deployment)))
    assert validate(file) == ""


def test_envoy_accepts_the_bootstrap_of_a_directory(tmp_path: Path) -> None:
    assert validate(write_xds(TWO_POOLS, SIDECARS, tmp_path)) == ""


def test_the_script_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "envoy" / "strip_usage.lua"
    file = tmp_path / "envoy.yaml"
    file.write_text(dump(static_config(TWO_POOLS, replace(SIDECARS, lua_path=str(script)))))
    assert str(script) in file.read_text()
    assert validate(file) == ""


def test_the_same_settings_give_the_same_text() -> None:
    assert dump(static_config(THREE_MODELS, SIDECARS)) == dump(static_config(THREE_MODELS, SIDECARS))


def test_a_model_that_passes_usage_needs_no_script() -> None:
    passing = Settings(Policy((THREE_MODELS.policy.models[2],), ()))
    assert "envoy.filters.http.lua" not in dump(static_config(passing, SIDECARS))
    assert "envoy.filters.http.lua" in dump(static_config(THREE_MODELS, SIDECARS))


def test_a_simulated_server_without_an_address_is_named() -> None:
    with pytest.raises(UnknownServerError, match="server 0 of pool 'default' of model 's'"):
        static_config(SIMULATED, SIDECARS)


def test_nothing_is_written_where_a_server_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(UnknownServerError):
        write_xds(SIMULATED, SIDECARS, tmp_path)
    assert list(tmp_path.iterdir()) == []
