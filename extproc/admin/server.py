"""The admin HTTP server. It only reads, and asks its owner for all it shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp import web
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from extproc.ledger import LedgerUnavailable

_CLOSE_SECONDS = 1.0  # for answers under way


class Owner(Protocol):
    """The process whose state is shown."""

    async def state(self) -> dict[str, Any]:
        """The document of /api/v1/state. Raises LedgerUnavailable where the shared state cannot be read."""

    async def unready(self) -> tuple[str, ...]:
        """Why requests would not succeed now; empty: they would."""

    def metrics(self, state: Mapping[str, Any] | None) -> Collector:
        """Everything one scrape shows; called on the event loop, collected on a thread. None: no state to be had."""


@dataclass(frozen=True, slots=True)
class Admin:
    """The running server."""

    host: str
    port: int
    runner: web.AppRunner

    async def close(self) -> None:
        await self.runner.cleanup()


async def start_admin(owner: Owner, host: str = "127.0.0.1", port: int = 0) -> Admin:
    """Listen on `port`, or on one the OS picks where it is 0. Raises OSError where it is taken."""
    app = web.Application(middlewares=[_errors_as_json])
    pages = _Pages(owner)
    app.router.add_get("/metrics", pages.metrics)
    app.router.add_get("/healthz", pages.healthz)
    app.router.add_get("/readyz", pages.readyz)
    app.router.add_get("/api/v1/state", pages.state)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return Admin(host, runner.addresses[0][1], runner)


class _Pages:
    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    async def metrics(self, request: web.Request) -> web.Response:
        try:
            state = await self._owner.state()
        except LedgerUnavailable:
            state = None  # the workers' counts matter most when something is broken
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        text = await asyncio.to_thread(encode, self._owner.metrics(state))
        response = web.Response(body=text, headers={"content-type": content_type})
        response.enable_compression()
        return response

    async def healthz(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        reasons = await self._owner.unready()
        if reasons:
            return _json({"status": "unready", "reasons": list(reasons)}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({"status": "ready", "reasons": []})

    async def state(self, _request: web.Request) -> web.Response:
        try:
            return _json(await self._owner.state())
        except LedgerUnavailable:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "the shared state cannot be reached")


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = _error(HTTPStatus(error.status), error.reason)
        if "allow" in error.headers:
            response.headers["allow"] = error.headers["allow"]
        return response


def _json(content: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    body = json.dumps(content).encode()
    return web.Response(
        body=body, status=status, headers={"content-type": "application/json", "cache-control": "no-store"}
    )


def _error(status: HTTPStatus, message: str) -> web.Response:
    return _json({"error": {"status": status.value, "message": message}}, status)
