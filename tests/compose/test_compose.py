"""What compose.yaml promises: it is valid, private, unprivileged, and starts in order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from extproc.config import load as load_settings
from extproc.envoy_config.deployment import server
from tests.compose.services import CONFIG, ROOT, Service, aliases, in_profile, services

OURS = {"envoy", "sidecar", "redis", "jaeger"}
PUBLISHED = {"127.0.0.1:8080:8080", "127.0.0.1:9464:9464", "127.0.0.1:16686:16686"}
ROOTLESS_BY_ITS_IMAGE = {"sidecar", "sim-short", "sim-long", "jaeger"}


@pytest.fixture(params=sorted(services()))
def service(request: pytest.FixtureRequest) -> tuple[str, Service]:
    return request.param, services()[request.param]


def test_it_is_valid_by_the_compose_specification() -> None:
    checker = Path(sys.executable).parent / "check-jsonschema"
    command = (checker, "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("profile", "servers"), [("sim", "sim"), ("gpu", "vllm")])
def test_each_profile_brings_its_two_pools(profile: str, servers: str) -> None:
    assert in_profile(profile).keys() - OURS == {f"{servers}-short", f"{servers}-long"}


def test_without_a_choice_the_servers_are_simulated() -> None:
    assert "COMPOSE_PROFILES=sim" in (ROOT / ".env").read_text().splitlines()


@pytest.mark.parametrize("profile", ["sim", "gpu"])
def test_every_endpoint_is_one_service_of_each_profile(profile: str) -> None:
    [model] = load_settings(CONFIG).policy.models
    names = [alias for one in in_profile(profile).values() for alias in aliases(one)]
    assert sorted(names) == sorted(server(url).host for pool in model.pools for url in pool.endpoints)


def test_ports_are_published_on_loopback_only() -> None:
    assert {port for one in services().values() for port in one.get("ports", [])} == PUBLISHED


def test_no_service_can_gain_privileges(service: tuple[str, Service]) -> None:
    assert service[1]["security_opt"] == ["no-new-privileges:true"]
    assert service[1]["cap_drop"] == ["ALL"]
    assert "privileged" not in service[1]


@pytest.mark.parametrize("name", sorted(in_profile("sim")))
def test_roots_are_read_only_and_users_not_root(name: str) -> None:
    one = services()[name]
    assert one["read_only"]
    assert one["tmpfs"] == ["/tmp"]  # noqa: S108 - of the container
    assert name in ROOTLESS_BY_ITS_IMAGE or one["user"] in {"envoy", "redis"}


def test_images_are_named_by_version(service: tuple[str, Service]) -> None:
    assert re.search(r":v?\d[\w.-]*\}?$", service[1]["image"]), service[1]["image"]


def test_whoever_is_waited_for_has_a_health_check() -> None:
    for one in services().values():
        for name, how in one.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            assert services()[name]["healthcheck"]["test"]


def test_what_a_profile_may_lack_is_not_required() -> None:
    for name, how in services()["envoy"]["depends_on"].items():
        assert ("profiles" in services()[name]) == (how.get("required") is False)


def test_files_that_are_mounted_exist_and_cannot_be_written() -> None:
    for one in services().values():
        for mount in one.get("volumes", []):
            source, _, rest = mount.partition(":")
            assert not source.startswith(".") or ((ROOT / source).is_file() and rest.endswith(":ro"))


def test_servers_obey_the_lengths_of_their_pools() -> None:
    [model] = load_settings(CONFIG).policy.models
    by_host = {server(url).host: pool for pool in model.pools for url in pool.endpoints}
    for one in services().values():
        for host in aliases(one):
            command = [str(word) for word in one["command"]]
            assert command[command.index("--max-model-len") + 1] == str(by_host[host].max_model_len)
