"""A simulated vLLM server over HTTP: routes, streams, aborts, and the faults that tests ask for."""

from __future__ import annotations

import asyncio
import random
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import click
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from extproc.core.facts import Api
from extproc.core.refusal import ErrorShape
from extproc.sim import api as shapes
from extproc.sim import asks, tokens
from extproc.sim.api import Answer, Choice, Writer
from extproc.sim.asks import Ask, Planned, Problem
from extproc.sim.engine import Engine, Generation, Token
from extproc.sim.metrics import EngineCollector, Totals
from extproc.sim.options import SimOptions

VERSION = "0.32.0"  # the vLLM release whose behaviour this follows
MAX_BODY_BYTES = 256 * 1024 * 1024  # vLLM sets no limit
BACKLOG = 4096  # a burst of connections is queued by the kernel, not refused
SHUTDOWN_SECONDS = 0.2  # what running answers get at shutdown before they are cut, as when vLLM stops
FAULT_HEADER = "x-sim-fault"


@dataclass(slots=True)
class _Draft:
    """One sequence's answer while it grows."""

    index: int
    planned: Planned
    source: Iterator[str]
    text: list[str]

    def add(self) -> str:
        word = next(self.source)
        self.text.append(word)
        return word

    def choice(self, *, ended: bool) -> Choice:
        reason = self.planned.finish_reason if ended else None
        return Choice(self.index, "".join(self.text) if ended else "", len(self.text), reason)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request that is being answered."""

    request: web.Request
    writer: Writer
    generation: Generation
    drafts: Sequence[_Draft]
    cut_after: int | None  # tokens, a fault

    @property
    def is_cut(self) -> bool:
        return self.cut_after is not None and sum(len(draft.text) for draft in self.drafts) >= self.cut_after

    def cut_if_due(self) -> None:
        """Raises ConnectionResetError where the test wants the connection to break now."""
        if self.is_cut:
            raise ConnectionResetError

    def choices(self) -> list[Choice]:
        return [draft.choice(ended=True) for draft in self.drafts]


class SimServer:
    """The HTTP side of one simulated server."""

    def __init__(self, options: SimOptions) -> None:
        self._options = options
        self._engine = Engine(options)
        self._totals = Totals()
        self._source = random.Random(options.seed)  # noqa: S311 - a simulation that can be repeated
        self._created = int(time.time())
        self._last: shapes.Json = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(EngineCollector(options.model, self._engine.counters, lambda: self._engine.load))

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        for api in (Api.CHAT, Api.COMPLETIONS, Api.RESPONSES, Api.MESSAGES):
            app.router.add_post(api.value, self._generate)
        app.router.add_post(Api.EMBEDDINGS.value, self._embed)
        app.router.add_post("/tokenize", self._tokenize)
        for path, handler in (
            ("/v1/models", self._models),
            ("/version", self._version),
            ("/health", self._health),
            ("/metrics", self._metrics),
            ("/sim/totals", self._show_totals),
        ):
            app.router.add_get(path, handler)
        if self._options.faults:
            app.router.add_get("/sim/last", self._show_last)
        return app

    def close(self) -> None:
        self._engine.close()

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        api = Api(request.path)
        ask = await self._accept(request, api)
        if not isinstance(ask, Ask):
            return ask
        planned = asks.plan(ask, self._options, self._source)
        drafts = [_Draft(i, p, tokens.words(self._source.getrandbits(32)), []) for i, p in enumerate(planned)]
        writer = shapes.writer(api, self._answer(request, ask))
        try:
            with self._run(ask, planned) as generation:
                exchange = _Exchange(request, writer, generation, drafts, self._cut_after(request))
                return await (_stream(exchange) if ask.stream else _collect(exchange))
        except ConnectionResetError:  # the client left, or a test asked for a cut
            return _hang_up(request)

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        ask = await self._accept(request, Api.EMBEDDINGS)
        if not isinstance(ask, Ask):
            return ask
        with self._run(ask, [Planned(prompt, 0, "stop") for prompt in ask.prompts]) as generation:
            await generation.take()
            return _json(shapes.embeddings(self._answer(request, ask)))

    @contextmanager
    def _run(self, ask: Ask, planned: Sequence[Planned]) -> Iterator[Generation]:
        """The request counts as finished unless its answer is left by an error; a client that left is one."""
        try:
            with self._engine.submit(planned) as generation:
                yield generation
        except BaseException:
            self._totals.aborted += 1
            raise
        self._totals.finished += 1
        self._totals.prompt_tokens += ask.prompt_tokens
        self._totals.completion_tokens += sum(sequence.output_tokens for sequence in planned)

    async def _accept(self, request: web.Request, api: Api) -> Ask | web.StreamResponse:
        """The request's ask, or the answer that ends it here."""
        self._totals.requests += 1
        body = await self._read(request)
        if (fault := self._fault(request, api)) is not None:
            return fault
        ask = asks.read(api, body)
        if isinstance(ask, Ask):
            problem = asks.check(ask, self._options, generates=api is not Api.EMBEDDINGS)
            if problem is None:
                return ask
            ask = problem
        return _refuse(ask, api.error_shape)

    async def _read(self, request: web.Request) -> bytes:
        body = await request.read()
        if self._options.faults:
            headers = {name.lower(): ", ".join(request.headers.getall(name)) for name in request.headers}
            self._last = {"path": request.path_qs, "headers": headers, "body": body.decode(errors="replace")}
        return body

    def _fault(self, request: web.Request, api: Api) -> web.StreamResponse | None:
        fault = request.headers.get(FAULT_HEADER, "") if self._options.faults else ""
        match fault:
            case "500" | "503":
                return _refuse(Problem(int(fault), "A fault that the test asked for."), api.error_shape)
            case "hangup":
                return _hang_up(request)
            case _:
                return None

    def _cut_after(self, request: web.Request) -> int | None:
        kind, _, number = request.headers.get(FAULT_HEADER, "").partition(":")
        return int(number) if self._options.faults and kind == "cut" and number.isdecimal() else None

    def _answer(self, request: web.Request, ask: Ask) -> Answer:
        request_id = request.headers.get("x-request-id") or uuid.UUID(int=self._source.getrandbits(128)).hex
        return Answer(request_id, int(time.time()), ask.model or self._options.model, ask)

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        result = asks.read_tokenize(await request.read())
        if isinstance(result, Problem):
            return _refuse(result, ErrorShape.OPENAI)
        count, ids = result
        limit = self._options.max_model_len
        return _json(shapes.encode({"count": count, "max_model_len": limit, "tokens": ids, "token_strs": None}))

    async def _models(self, _request: web.Request) -> web.StreamResponse:
        options = self._options
        return _json(shapes.models((options.model, *options.aliases), self._created, options.max_model_len))

    async def _version(self, _request: web.Request) -> web.StreamResponse:
        return _json(shapes.encode({"version": VERSION}))

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        return web.Response()

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _show_totals(self, _request: web.Request) -> web.StreamResponse:
        load = self._engine.load
        now = {"running": load.running, "waiting": load.waiting, "kv_tokens": load.kv_tokens}
        return _json(shapes.encode({**asdict(self._totals), **now}))

    async def _show_last(self, _request: web.Request) -> web.StreamResponse:
        return _json(shapes.encode(self._last))


@dataclass(frozen=True, slots=True)
class SimHandle:
    """A simulated server that is listening."""

    port: int
    server: SimServer
    runner: web.AppRunner

    async def close(self) -> None:
        """Stops listening, cuts what is being answered."""
        await self.runner.cleanup()
        self.server.close()


async def serve(options: SimOptions, host: str, port: int) -> SimHandle:
    """Starts a simulated server on the running loop; port 0 lets the system choose.

    Raises:
        OSError: where the address cannot be listened on.
    """
    server = SimServer(options)
    # A client that leaves cancels its handler, which frees the batch's slot at once, as vLLM does.
    runner = web.AppRunner(
        server.application(),
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
    except OSError:
        await runner.cleanup()
        raise
    return SimHandle(runner.addresses[0][1], server, runner)


async def run_until_signal(options: SimOptions, host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM; says in one line when it is ready."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    handle = await serve(options, host, port)
    click.echo(f"tokenpool sim is ready: http://{host}:{handle.port}")
    await stop.wait()
    await handle.close()


async def _collect(exchange: _Exchange) -> web.StreamResponse:
    while batch := await exchange.generation.take():
        for token in batch:
            exchange.drafts[token.sequence].add()
            exchange.cut_if_due()
    return _json(exchange.writer.whole(exchange.choices()))


async def _stream(exchange: _Exchange) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    # vLLM, too, sends the headers before there is a token: the first byte is not the first token.
    await response.prepare(exchange.request)
    opening = exchange.writer.opening(len(exchange.drafts))
    while batch := await exchange.generation.take():
        # Tokens that came together go out in one write, each as its own event.
        events = [opening]
        opening = b""
        for token in batch:
            events.append(_token_event(exchange, token))
            if exchange.is_cut:
                break
        await response.write(b"".join(events))
        exchange.cut_if_due()
    await response.write(exchange.writer.closing(exchange.choices()))
    await response.write_eof()
    return response


def _token_event(exchange: _Exchange, token: Token) -> bytes:
    draft = exchange.drafts[token.sequence]
    word = draft.add()
    return exchange.writer.token(word, draft.choice(ended=token.last))


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _refuse(problem: Problem, shape: ErrorShape) -> web.Response:
    return web.Response(status=problem.status, body=shapes.problem(problem, shape), content_type="application/json")


def _hang_up(request: web.Request) -> web.Response:
    """Closes the connection; the response that aiohttp wants goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()
