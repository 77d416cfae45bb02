"""What Envoy of a running stack thinks of the sidecar's workers."""

from __future__ import annotations

import re

from tests.e2e.stack import Stack, fetched


def all_serve(stack: Stack, workers: int = 2) -> bool:
    """Whether Envoy would give each of them a request: a worker that was just started it does not know yet."""
    found = re.search(r"port_value: (\d+)", (stack.run_dir / "envoy" / "bootstrap.yaml").read_text())
    assert found
    with fetched(f"http://127.0.0.1:{found[1]}/clusters") as answer:
        return answer.read().decode().count(".sock::health_flags::healthy") == workers
