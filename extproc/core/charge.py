"""What an ended request is charged: what the server counted, or by rule what was certainly used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from extproc.core.policy import Cost
from extproc.core.ticket import Ticket

JSON_BYTES_PER_TOKEN = 4.0  # the text of an answer that is not streamed
CLIENT_ERROR = 400  # and above: the server refused or failed; nothing was generated for the client


class Source(StrEnum):
    USAGE = "usage"
    ESTIMATED = "estimated"
    NOTHING = "nothing"
    UNUSED = "unused"  # the client left before its verdict came
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended, as Envoy's access log tells it. None: the server never said."""

    status: int  # 0 where the client went away before an answer began
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    first_byte: bool = False
    response_bytes: int = 0
    attempts: int = 1
    ttft_seconds: float | None = None
    duration_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that is over."""

    ticket: Ticket
    ending: Ending


@dataclass(frozen=True, slots=True)
class Running:
    """A request that goes on: its lease must not expire."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A request that ended before Envoy had its verdict; a lease of this name may exist, now or in a moment."""

    lease: str


Entry = Ended | Running | Unjudged  # what one entry of Envoy's access log says


@dataclass(frozen=True, slots=True)
class Charge:
    """`tokens` is weighted by the model's cost; the other two are plain counts."""

    prompt_tokens: int
    completion_tokens: int
    tokens: int
    source: Source


def charge(ticket: Ticket, ending: Ending, cost: Cost, stream_bytes_per_token: float) -> Charge:
    """Usage where the server gave it.

    Else nothing before the first byte or for an error, and after it the prompt and the bytes sent so far.
    """
    # A count of the prompt alone is the whole of an embedding, but of a stream only its beginning (Anthropic's
    # message_start): Envoy logs 200 for it though the client may have gone long before the end.
    complete = 0 < ending.status < CLIENT_ERROR and not ticket.stream
    if ending.prompt_tokens is not None and (ending.completion_tokens is not None or complete):
        prompt, completion = ending.prompt_tokens, ending.completion_tokens or 0
        return Charge(prompt, completion, weighted(prompt, completion, ending.cached_tokens or 0, cost), Source.USAGE)
    if not ending.first_byte or ending.status >= CLIENT_ERROR:
        return Charge(0, 0, 0, Source.NOTHING)
    prompt = ticket.prompt_estimate if ending.prompt_tokens is None else ending.prompt_tokens
    per_token = stream_bytes_per_token if ticket.stream else JSON_BYTES_PER_TOKEN
    completion = math.ceil(ending.response_bytes / per_token)
    return Charge(prompt, completion, weighted(prompt, completion, 0, cost), Source.ESTIMATED)


def weighted(prompt: int, completion: int, cached: int, cost: Cost) -> int:
    """Tokens times their cost, rounded up. `cached` is part of the prompt."""
    fresh = max(0, prompt - cached)
    return math.ceil(fresh * cost.prompt + min(cached, prompt) * cost.cached_prompt + completion * cost.completion)


def cut_short(ticket: Ticket, due: Charge, max_model_len: int) -> bool:
    """The server's length ended the answer before the client's own limit did: vLLM does so and says nothing.

    Told by the counts alone, of requests with one prompt; of several answers, where all were cut.
    """
    if due.source is not Source.USAGE or ticket.prompts > 1 or due.completion_tokens == 0:
        return False
    each = math.ceil(due.completion_tokens / max(1, ticket.answers))
    return due.prompt_tokens + each >= max_model_len and not 0 <= ticket.asked_tokens <= each


def misrouted(ticket: Ticket, ending: Ending) -> bool:
    """The pool's server found the request too long, and the next pool's took it."""
    return ticket.retriable and ending.attempts > 1 and 0 < ending.status < CLIENT_ERROR
