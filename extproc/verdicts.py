"""Verdicts: who asks, what it will cost, where it may go, and whether the ledger grants it."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from urllib.parse import unquote

from extproc.beliefs import LearnedBeliefs
from extproc.core import admission, charge, estimate, request, routing
from extproc.core.directory import Directory, api_key
from extproc.core.estimate import Estimate
from extproc.core.facts import Api, RequestFacts
from extproc.core.observed import Decided, Observer
from extproc.core.policy import Entitlement, Model, ServiceClass, StreamUsage
from extproc.core.refusal import ErrorShape, Reason, Refusal
from extproc.core.settings import Settings
from extproc.core.ticket import Ticket
from extproc.core.wording import (
    limit_headers,
    no_ledger,
    over_limit,
    preempted,
    shutting_down,
    too_large_for_entitlement,
    unknown_key,
    unknown_model,
    unknown_path,
)
from extproc.ledger import Admitted, Demand, Ledger, LedgerUnavailable, Refused

MODELS_PATH = "/v1/models"
CLAIMS_RETRY_SECONDS = 1.0  # while the shared state cannot be reached nobody claims anything


@dataclass(frozen=True, slots=True)
class Call:
    """One request as Envoy shows it."""

    method: str
    path: str
    authorization: str = ""
    x_api_key: str = ""
    content_encoding: str = ""
    identity: str = ""  # the entitlement that a trusted filter named, where one is configured
    traceparent: str = ""
    stream_id: str = ""  # our Envoy's own name for the request; "" behind another's configuration
    movable: bool = False  # Envoy asks another worker where this one gives no answer
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Admission:
    """The request may go to a pool. `body` replaces the client's where it is not None."""

    model: str
    pool: str
    ticket: Ticket
    limits: tuple[tuple[str, str], ...]  # x-ratelimit headers
    retry: bool
    strip_usage: bool
    body: bytes | None
    service_class: ServiceClass
    borrowed: bool = False  # its room may be claimed: await Verdicts.claimed, and end the request then


@dataclass(frozen=True, slots=True)
class Denial:
    refusal: Refusal
    shape: ErrorShape


@dataclass(frozen=True, slots=True)
class Listing:
    """The answer to GET /v1/models."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """No answer: this worker stops, and the request had still to wait. Another worker is to be asked."""


Answer = Admission | Denial | Listing
Verdict = Answer | Moved


@dataclass(frozen=True, slots=True)
class _Plan:
    """A request that only the ledger can still refuse."""

    facts: RequestFacts
    model: Model
    entitlement: Entitlement
    estimate: Estimate
    pools: tuple[str, ...]
    tokens: int  # weighted by the model's cost


class Verdicts:
    """Decides calls. Holds nothing of a request once its verdict is out."""

    def __init__(self, settings: Settings, ledger: Ledger, beliefs: LearnedBeliefs, observer: Observer) -> None:
        self._settings = settings
        self._directory = Directory(settings.policy)
        self._ledger = ledger
        self._beliefs = beliefs
        self._observer = observer
        self._lease_prefix = secrets.token_hex(8)
        self._leases = count()
        self._waiting: set[asyncio.Task[object]] = set()
        self._stopping = False
        self._terms = {model.name: admission.terms_of(model, settings.policy) for model in settings.policy.models}

    async def decide(self, call: Call) -> Verdict:
        """Never raises for anything a client sends."""
        started_ns, started = time.time_ns(), time.perf_counter()
        path = call.path.partition("?")[0]
        api = request.api_of(path)
        if api is None and f"{path}/".startswith(f"{MODELS_PATH}/"):
            return self._list(call, path)
        fact = Decided("refuse", "", 200, started_ns, 0.0, traceparent=call.traceparent)
        verdict, fact = await self._decide(call, api, fact)
        if isinstance(verdict, Moved):
            return verdict
        if isinstance(verdict, Denial):
            fact = replace(fact, reason=verdict.refusal.reason.value, status=verdict.refusal.status)
        self._observer.decided(replace(fact, seconds=time.perf_counter() - started))
        return verdict

    async def claimed(self, admission: Admission) -> Denial:
        """Returns when the room of a borrowed admission is claimed: what its client is told. Outages only delay it."""
        ticket = admission.ticket
        while True:
            try:
                await self._ledger.taken_back(ticket.lease)
                break
            except LedgerUnavailable:
                await asyncio.sleep(CLAIMS_RETRY_SECONDS)
        self._observer.preempted(ticket.model, ticket.entitlement, admission.service_class.value)
        return Denial(preempted(ticket.entitlement, ticket.model), ticket.api.error_shape)

    def stop(self) -> None:
        """Nobody waits for room here any longer."""
        self._stopping = True
        for task in self._waiting:
            task.cancel()

    async def _decide(self, call: Call, api: Api | None, fact: Decided) -> tuple[Verdict, Decided]:
        shape = ErrorShape.OPENAI if api is None else api.error_shape
        if api is None or call.method != "POST":
            return Denial(unknown_path(call.method, call.path), shape), fact
        entitlements = self._entitlements(call)
        if entitlements is None:
            return Denial(unknown_key(), shape), fact
        facts = _read(api, call, self._settings.max_body_bytes)
        if isinstance(facts, Refusal):
            return Denial(facts, shape), fact
        judged, fact = await self._judge(call, facts, entitlements, replace(fact, facts=facts))
        return (Denial(judged, shape) if isinstance(judged, Refusal) else judged), fact

    async def _judge(
        self, call: Call, facts: RequestFacts, entitlements: Mapping[str, Entitlement], fact: Decided
    ) -> tuple[Admission | Refusal | Moved, Decided]:
        model = self._directory.model(facts.model)
        entitlement = entitlements.get(model.name) if model else None
        if model is None or entitlement is None:
            return unknown_model(facts.model), fact
        fact = _with_tenant(fact, entitlement)
        plan = await self._plan(facts, model, entitlement)
        if isinstance(plan, Refusal):
            return plan, fact
        fact = _with_plan(fact, plan)
        admitted = await self._admit(call, plan)
        if not isinstance(admitted, Admission):
            return admitted, fact
        return admitted, replace(fact, verdict="admit", pool=admitted.pool)

    def _entitlements(self, call: Call) -> Mapping[str, Entitlement] | None:
        if call.identity:
            return self._directory.of_identity(call.identity)
        key = api_key(call.authorization, call.x_api_key)
        return self._directory.of_key(key) if key else None

    async def _plan(self, facts: RequestFacts, model: Model, entitlement: Entitlement) -> _Plan | Refusal:
        beliefs = await self._beliefs.of(model.name, entitlement.name, facts.category)
        expected = estimate.estimate(facts, model, beliefs)
        pools = routing.candidates(model, expected)
        if isinstance(pools, Refusal):
            return pools
        tokens = max(1, charge.weighted(expected.budget_prompt, expected.reserved_output, 0, model.cost))
        never = admission.never_fits(entitlement, tokens, expected.reserved)
        terms = self._terms[model.name]
        holding = admission.pools_that_can_hold(entitlement, terms, tokens, expected.reserved)
        pools = tuple(pool for pool in pools if pool in holding)
        if never is not None or not pools:
            return too_large_for_entitlement(entitlement, never, tokens, expected.reserved)
        return _Plan(facts, model, entitlement, expected, pools, tokens)

    async def _admit(self, call: Call, plan: _Plan) -> Admission | Refusal | Moved:
        # Never x-request-id: clients choose that.
        lease = call.stream_id or f"{self._lease_prefix}{next(self._leases):x}"
        demand = Demand(
            lease, plan.model.name, plan.entitlement, plan.pools, plan.tokens, plan.estimate.reserved,
            fingerprint=request.fingerprint(call.body),
        )  # fmt: skip
        try:
            answer = await self._answer_to(demand)
        except LedgerUnavailable:
            return no_ledger()
        if answer is None:
            return Moved() if call.movable else shutting_down()
        if isinstance(answer, Refused):
            return over_limit(plan.entitlement, answer.reason, answer.retry_ms, limit_headers(answer.limits))
        return self._admission(call, plan, lease, answer)

    async def _answer_to(self, demand: Demand) -> Admitted | Refused | None:
        """None where this worker stops while the request waits."""
        task = asyncio.current_task()
        if demand.entitlement.max_wait_ms == 0 or task is None:
            return await self._ledger.admit(demand)
        if self._stopping:
            return None
        self._waiting.add(task)
        try:
            return await self._ledger.admit(demand)
        except asyncio.CancelledError:
            # By `stop`; or, whether or not by that too, since Envoy has ended the stream.
            if self._stopping and task.uncancel() == 0:
                return None
            raise
        finally:
            self._waiting.discard(task)

    def _admission(self, call: Call, plan: _Plan, lease: str, answer: Admitted) -> Admission:
        facts, model, expected = plan.facts, plan.model, plan.estimate
        retry = model.routing.spill and routing.near_limit(model, answer.pool, expected)
        body = request.ask_for_usage(call.body, facts)
        ticket = Ticket(
            lease=lease,
            model=model.name,
            entitlement=plan.entitlement.name,
            pool=answer.pool,
            api=facts.api,
            category=facts.category,
            stream=facts.stream,
            text_bytes=facts.text_bytes,
            messages=facts.messages,
            known_tokens=estimate.known_tokens(facts, model),
            prompt_estimate=expected.likely_prompt,
            reserved_tokens=expected.reserved,
            prompts=facts.prompts,
            answers=facts.choices * facts.prompts,
            asked_tokens=-1 if facts.max_output is None else facts.max_output,
            retriable=retry,
            traceparent=call.traceparent,
        )
        return Admission(
            model=model.name,
            pool=answer.pool,
            ticket=ticket,
            limits=limit_headers(answer.limits),
            retry=retry,
            strip_usage=body is not None and model.stream_usage is StreamUsage.STRIP,
            body=body,
            service_class=plan.entitlement.service_class,
            borrowed=answer.borrowed,
        )

    def _list(self, call: Call, path: str) -> Verdict:
        entitlements = self._entitlements(call)
        if entitlements is None:
            return Denial(unknown_key(), ErrorShape.OPENAI)
        if call.method not in ("GET", "HEAD"):
            return Denial(unknown_path(call.method, call.path), ErrorShape.OPENAI)
        wanted = unquote(path[len(MODELS_PATH) :]).strip("/")  # OpenAI's client quotes a slash in a name
        names = [name for model in entitlements for name in self._names(model)]
        if not wanted:
            return Listing(json.dumps({"object": "list", "data": [_model_object(name) for name in names]}).encode())
        if wanted not in names:
            return Denial(unknown_model(wanted), ErrorShape.OPENAI)
        return Listing(json.dumps(_model_object(wanted)).encode())

    def _names(self, model_name: str) -> tuple[str, ...]:
        model = self._directory.model(model_name)
        return () if model is None else (model.name, *model.aliases)


def _read(api: Api, call: Call, max_body_bytes: int) -> RequestFacts | Refusal:
    if len(call.body) > max_body_bytes:
        return Refusal(413, Reason.BODY_TOO_LARGE, f"The body is larger than {max_body_bytes} bytes.")
    if call.content_encoding not in ("", "identity"):
        message = f"Send the body without content-encoding; {call.content_encoding!r} is not accepted."
        return Refusal(400, Reason.INVALID_REQUEST, message)
    return request.read(api, call.body)


def _with_tenant(fact: Decided, entitlement: Entitlement) -> Decided:
    return replace(
        fact,
        model=entitlement.model,
        entitlement=entitlement.name,
        service_class=entitlement.service_class.value,
    )


def _with_plan(fact: Decided, plan: _Plan) -> Decided:
    return replace(
        fact,
        preferred_pool=plan.pools[0],
        prompt_estimate=plan.estimate.likely_prompt,
        budget_tokens=plan.estimate.budget,
        reserved_tokens=plan.estimate.reserved,
        bytes_per_token=plan.estimate.bytes_per_token,
    )


def _model_object(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tokenpool"}
