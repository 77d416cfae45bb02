from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result

from extproc.admin import document
from extproc.cli import main
from extproc.config import load
from extproc.core.policy import Vector
from extproc.ledger import EntitlementState, ModelState, PoolState

EXAMPLE = Path(__file__).parents[2] / "tokenpool.yaml"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/api/v1/state" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["status", "--admin-url", url, *arguments])


@pytest.fixture
def state() -> bytes:
    """The document as the admin server makes it, with something in use."""
    used = Vector(120, 3000, 2)
    model = ModelState(
        pools={"short": PoolState(used, servers=1, desired=2)},
        entitlements={
            "acme-chat": EntitlementState(
                *(used, used, 7321, 100, 20),
                share=Vector(900, 70_000, 9),
                cap=Vector(1100, 80_000, 20),
                debt=-0.126,
                waiting=3,
            )
        },
    )
    return json.dumps(document(load(EXAMPLE).policy, {"llama-3-8b": model}, degraded=False)).encode()


def test_pools_and_entitlements_are_shown_with_what_they_use_and_may_use(state: bytes) -> None:
    with answering(200, state) as url:
        result = run(url)
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "llama-3-8b short 1 2 120/2,400 3,000/262,144 2/64" in rows
    assert "llama-3-8b long 1 - 0/900 0/524,288 0/16" in rows
    assert "llama-3-8b acme-chat guaranteed 120/900/1,100 3,000/70,000/80,000 2/9/20 -0.13 3 7,321 120" in rows


def test_json_is_the_servers_own_document(state: bytes) -> None:
    with answering(200, state) as url:
        assert json.loads(run(url, "--json").stdout) == json.loads(state)


def test_a_degraded_sidecar_is_said_to_be_so(state: bytes) -> None:
    with answering(200, state.replace(b'"degraded": false', b'"degraded": true')) as url:
        assert run(url).stdout.startswith("Degraded: ")


def test_colours_and_frames_are_for_terminals(state: bytes) -> None:
    with answering(200, state) as url:
        assert run(url).stdout.isascii()


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [
        (200, b"<html>", "is not Tokenpool's admin server"),
        (200, b"{}", "is not Tokenpool's admin server"),
        (503, b'{"error": "ledger"}', 'answers 503: {"error": "ledger"}'),
    ],
    ids=["html", "other JSON", "503"],
)
def test_another_answer_is_one_line(status: int, body: bytes, complaint: str) -> None:
    with answering(status, body) as url:
        result = run(url)
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert complaint in line
