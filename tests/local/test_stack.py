"""The stack in this process, as far as it gets: failures at every stage leave nothing behind."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from extproc.cli.up import DEMO_KEY, example_request
from extproc.config import load
from extproc.core.policy import Policy
from extproc.core.settings import Settings
from extproc.local import programs, stack
from extproc.local.faults import StackError
from extproc.local.stack import Addresses, Announcements, StackOptions

EXAMPLE = Path(__file__).parents[2] / "tokenpool.yaml"
OPTIONS = StackOptions(EXAMPLE, workers=1, port=0, admin_port=0, envoy_admin_port=0)


def settings_with_endpoint(endpoint: str) -> Settings:
    settings = load(EXAMPLE)
    [model] = settings.policy.models
    pools = tuple(replace(pool, endpoints=(endpoint,)) for pool in model.pools)
    return replace(settings, policy=Policy((replace(model, pools=pools),), settings.policy.entitlements))


async def run(settings: Settings, options: StackOptions = OPTIONS) -> None:
    def unexpected(addresses: Addresses) -> None:
        raise AssertionError(addresses)

    await stack.run(options, settings, Announcements(ready=unexpected, progress=lambda _: None))


def own_children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    return {pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test there is no process and no run directory that was not there before."""
    before = own_children()
    with tempfile.TemporaryDirectory(prefix="t-") as run_dirs:  # tmp_path is too long for a socket
        monkeypatch.setattr(tempfile, "tempdir", run_dirs)
        yield
        assert list(Path(run_dirs).glob("tokenpool-*")) == []
    assert own_children() == before


async def assert_fails(settings: Settings, complaint: str, options: StackOptions = OPTIONS) -> None:
    with pytest.raises(StackError, match=complaint):
        await run(settings, options)


async def test_a_missing_program_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "envoy", lambda: Path("/no/such/envoy"))
    await assert_fails(load(EXAMPLE), r"^cannot run envoy \(/no/such/envoy\)")


async def test_an_envoy_that_ends_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusing = tmp_path / "envoy"
    refusing.write_text("#!/bin/sh\necho 'error initializing configuration: no'\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(programs, "envoy", lambda: refusing)
    expected = "^envoy ended with exit code 1; its last lines:\n  error initializing configuration: no$"
    await assert_fails(load(EXAMPLE), expected)


async def test_a_redis_that_is_not_there_is_said_first() -> None:
    settings = replace(load(EXAMPLE), redis="redis://:secret@127.0.0.1:1/0")
    await assert_fails(settings, r"^no Redis at redis://:\*\*\*@127.0.0.1:1/0 ")


async def test_wrong_parameters_of_a_simulator_are_said_first() -> None:
    settings = settings_with_endpoint("sim://?sped=10")
    await assert_fails(settings, "^an endpoint of pool short of llama-3-8b: unknown parameter sped")


async def test_a_taken_port_is_said_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = replace(OPTIONS, envoy_admin_port=port)
        await assert_fails(load(EXAMPLE), f"^port {port} is taken; .* --envoy-admin-port$", options)


def test_a_long_temporary_directory_is_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + "x" * 90)  # noqa: S108
    with stack.run_directory() as directory:
        assert len(f"{directory}/sidecar-255.sock") < stack.MAX_SOCKET_PATH
    assert not directory.exists()


def test_the_example_request_has_the_demo_key_where_the_file_knows_it() -> None:
    assert f"Bearer {DEMO_KEY}'" in example_request("http://e", load(EXAMPLE))


def test_the_example_request_has_a_stand_in_elsewhere() -> None:
    settings = load(EXAMPLE)
    keyless = tuple(replace(one, key_hashes=()) for one in settings.policy.entitlements)
    request = example_request("http://e", replace(settings, policy=Policy(settings.policy.models, keyless)))
    assert "Bearer YOUR_KEY'" in request
