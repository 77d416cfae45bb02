"""What refused clients are told, in words and in the x-ratelimit headers."""

from __future__ import annotations

from dataclasses import dataclass

from extproc.core import admission
from extproc.core.policy import Entitlement
from extproc.core.refusal import Reason, Refusal

MS_A_SECOND, MS_A_MINUTE = 1000, 60_000
PREEMPTED_RETRY_MS = 1000  # a tick of the controller: by then it has shared out what is left


@dataclass(frozen=True, slots=True)
class Limits:
    """Where an entitlement stands after a decision; the source of the x-ratelimit headers."""

    slots_limit: int
    slots_left: int
    slots_reset_ms: int  # when one more slot can be expected to be free; 0 where one is
    tokens_limit: int
    tokens_left: int
    tokens_reset_ms: int  # when the buckets will be full again


def limit_headers(limits: Limits) -> tuple[tuple[str, str], ...]:
    return (
        ("x-ratelimit-limit-requests", str(limits.slots_limit)),
        ("x-ratelimit-remaining-requests", str(limits.slots_left)),
        ("x-ratelimit-reset-requests", duration(limits.slots_reset_ms)),
        ("x-ratelimit-limit-tokens", str(limits.tokens_limit)),
        ("x-ratelimit-remaining-tokens", str(limits.tokens_left)),
        ("x-ratelimit-reset-tokens", duration(limits.tokens_reset_ms)),
    )


def duration(ms: int) -> str:
    """As OpenAI writes it: `12ms`, `1.5s`, `6m0s`."""
    if ms < MS_A_SECOND:
        return f"{ms}ms"
    minutes, rest = divmod(ms, MS_A_MINUTE)
    seconds = f"{rest / MS_A_SECOND:g}s"
    return f"{minutes}m{seconds}" if minutes else seconds


def unknown_key() -> Refusal:
    message = "Missing or unknown API key. Send a valid one as 'Authorization: Bearer KEY'."
    return Refusal(401, Reason.UNAUTHORIZED, message)


def unknown_model(name: str) -> Refusal:
    message = f"The model '{name}' does not exist or you do not have access to it."
    return Refusal(404, Reason.MODEL_NOT_FOUND, message, param="model")


def unknown_path(method: str, path: str) -> Refusal:
    return Refusal(404, Reason.NOT_FOUND, f"Unknown request: {method} {path.partition('?')[0]}.")


def not_text() -> Refusal:
    """Envoy passes the bytes of headers on as they came; its protocol has text there."""
    return Refusal(400, Reason.INVALID_REQUEST, "The request's path and headers must be valid UTF-8.")


def no_ledger() -> Refusal:
    message = "Admission is not possible at the moment. Please try again."
    return Refusal(503, Reason.LEDGER_UNAVAILABLE, message, retry_ms=1000)


def shutting_down() -> Refusal:
    message = "This gateway is restarting. Please try again."
    return Refusal(503, Reason.SHUTTING_DOWN, message, retry_ms=1000)


def preempted(entitlement: str, model: str) -> Refusal:
    """Of a request that ran on what is promised to others. Its room is in use now: hence the pause."""
    message = (
        f"This request of '{entitlement}' was ended: it ran on capacity of '{model}' that is promised to others, "
        f"who need it now. Please try again in {duration(PREEMPTED_RETRY_MS)}."
    )
    return Refusal(429, Reason.PREEMPTED, message, retry_ms=PREEMPTED_RETRY_MS)


def too_large_for_entitlement(entitlement: Entitlement, unit: Reason | None, tokens: int, kv_tokens: int) -> Refusal:
    """400, not 429: waiting cannot help."""
    limits = {
        Reason.TOKENS_PER_SECOND: f"about {tokens} tokens, and its buckets hold {admission.buckets(entitlement).depth}",
        Reason.KV_TOKENS: f"about {kv_tokens} KV-cache tokens, and its cap is {entitlement.caps.kv_tokens}",
        None: f"about {tokens} tokens, more than a server of '{entitlement.model}' can ever set aside for it",
    }
    message = f"This request is larger than '{entitlement.name}' may ever send: it needs {limits[unit]}."
    return Refusal(400, Reason.ENTITLEMENT_EXCEEDED, message, param="max_tokens")


def over_limit(
    entitlement: Entitlement, reason: Reason, retry_ms: int, headers: tuple[tuple[str, str], ...]
) -> Refusal:
    if reason is Reason.NO_SERVERS:  # in the words of Envoy's local reply
        return Refusal(503, reason, "no server of this model can be reached", retry_ms=retry_ms)
    spent = {
        Reason.TOKENS_PER_SECOND: f"has spent its tokens (limit: {entitlement.caps.tokens_per_second} a second)",
        Reason.KV_TOKENS: f"uses all of its KV-cache tokens (limit: {entitlement.caps.kv_tokens})",
        Reason.CONCURRENCY: f"has all of its requests in flight (limit: {entitlement.caps.concurrency})",
        Reason.POOL_CAPACITY: "found no free capacity beside what is promised to others",
    }
    message = (
        f"Rate limit reached: '{entitlement.name}' {spent[reason]} on '{entitlement.model}'. "
        f"Please try again in {duration(retry_ms)}."
    )
    return Refusal(429, reason, message, retry_ms=retry_ms, headers=headers)
