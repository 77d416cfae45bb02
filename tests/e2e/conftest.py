"""One stack for the tests that leave it as they found it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack, running


def key_hash(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


CONFIG = f"""
models:
  - name: m
    aliases: [alias]
    pools:
      short:
        endpoints: ["sim://?speed=20&faults=true&max_model_len=1500"]   # shorter than the pool says: it answers 400
        max_model_len: 2048
        capacity: {{tokens_per_second: 1000000, kv_tokens: 4000000, concurrency: 400}}
      long:
        endpoints: ["sim://?speed=20&faults=true"]
        max_model_len: 16384
        capacity: {{tokens_per_second: 1000000, kv_tokens: 4000000, concurrency: 400}}
    routing: {{threshold_tokens: 2048}}
entitlements:
  - {{name: wide, model: m, class: guaranteed, keys: ["{key_hash("sk-wide")}"],
     tokens_per_second: 500000, kv_tokens: 2000000, concurrency: 200}}
  - {{name: twenty, model: m, class: guaranteed, keys: ["{key_hash("sk-twenty")}"],
     tokens_per_second: 100000, kv_tokens: 100000, concurrency: 20}}
  - {{name: slow, model: m, class: elastic, keys: ["{key_hash("sk-slow")}"],
     tokens_per_second: 100, kv_tokens: 10000, concurrency: 10, burst: {{seconds: 4}}}}
"""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(CONFIG, tmp_path_factory.mktemp("stack")) as found:
        yield found
