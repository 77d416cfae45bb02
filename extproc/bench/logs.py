"""Logs that real programs write: Python's imports, botocore's debugging, a web server's accesses."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_IMPORTED = (
    "aiohttp, django, email, grpc, multiprocessing, numpy, pydantic, redis.asyncio, sqlite3, unittest, xml.dom.minidom"
)
REQUESTS = 600
_FORMAT = "%(asctime)s %(name)s [%(process)d] %(levelname)s %(message)s"


def imports() -> str:
    """`python -v`: what is imported from where."""
    return _stderr("-v")


def import_times() -> str:
    return _stderr("-X", "importtime")


def _stderr(*options: str) -> str:
    command = (sys.executable, *options, "-c", f"import {_IMPORTED}")
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr  # noqa: S603 - our own words


def accesses() -> str:
    """The log of a web server on the loopback, whose pages are Python's own library."""
    root = Path(logging.__file__).parent.parent
    paths = [path.relative_to(root).as_posix() for path in sorted(root.glob("*/*.py"))[:REQUESTS]]
    with _served(root) as (url, lines):
        for number, path in enumerate(paths):
            _get(f"{url}/{path}{'.bak' if number % 7 == 0 else ''}")  # some are not found
    return "\n".join(lines)


def _get(url: str) -> None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):  # noqa: S310 - our own server
            pass
    except urllib.error.HTTPError as error:
        error.close()


@contextmanager
def _served(root: Path) -> Iterator[tuple[str, list[str]]]:
    lines: list[str] = []

    class Logged(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - the base class's own
            super().__init__(*arguments, directory=str(root))

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's own
            lines.append(f"{self.address_string()} - - [{self.log_date_time_string()}] {format % arguments}")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Logged)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", lines
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def debugging(services: tuple[str, ...]) -> str:
    """What botocore logs while it makes clients; nothing is called."""
    import botocore.session  # noqa: PLC0415 - of the extra

    log, written = logging.getLogger("botocore"), io.StringIO()
    handler, level, passes_on = logging.StreamHandler(written), log.level, log.propagate
    handler.setFormatter(logging.Formatter(_FORMAT))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        session = botocore.session.Session()
        for service in services:
            session.create_client(service, "eu-central-1", aws_access_key_id="none", aws_secret_access_key="none")  # noqa: S106 - nothing is called
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = passes_on
    return written.getvalue()
