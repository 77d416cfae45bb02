"""The servers that answer are what a pool's capacity stands for."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.app.conftest import free_port
from tests.e2e.conftest import key_hash
from tests.e2e.stack import Stack, children, running, until

pytestmark = pytest.mark.e2e


def config(gone: int) -> str:
    """A pool of one server that is not there and one that is simulated."""
    return f"""
tick_ms: 200
models:
  - name: m
    pools:
      default:
        endpoints: ["http://127.0.0.1:{gone}", "sim://"]
        max_model_len: 2048
        capacity: {{tokens_per_second: 1000, kv_tokens: 40000, concurrency: 8}}
entitlements:
  - {{name: acme, model: m, class: elastic, keys: ["{key_hash("sk-acme")}"],
     tokens_per_second: 100, kv_tokens: 4000, concurrency: 2}}
"""


def pool(stack: Stack) -> dict[str, Any]:
    return dict(stack.state()["models"]["m"]["pools"]["default"])


async def test_capacity_follows_the_servers_that_answer(tmp_path: Path) -> None:
    with running(config(free_port()), tmp_path, workers=1) as stack:
        await until(lambda: pool(stack)["servers"] == 1)
        assert pool(stack)["capacity"]["concurrency"] == 8
        assert stack.metric("tokenpool_servers", model="m", pool="default") == 1
        [simulator] = children(stack.pid, "sim")
        os.kill(simulator, signal.SIGSTOP)
        try:
            await until(lambda: pool(stack)["servers"] == 0)
            assert pool(stack)["capacity"]["concurrency"] == 0
        finally:
            os.kill(simulator, signal.SIGCONT)
        await until(lambda: pool(stack)["servers"] == 1)
