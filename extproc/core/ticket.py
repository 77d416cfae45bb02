"""What a verdict hands to its own settlement, through Envoy: opaque text in the request's dynamic metadata."""

from __future__ import annotations

from dataclasses import dataclass, fields

from extproc.core.facts import Api, Category

_VERSION = "2"  # raised when a field changes its meaning: a sidecar of another release then leaves the ticket alone
_SEPARATOR = "|"  # no name may hold it (config)


@dataclass(frozen=True, slots=True)
class Ticket:
    lease: str
    model: str
    entitlement: str
    pool: str
    api: Api
    category: Category
    stream: bool
    text_bytes: int
    messages: int
    known_tokens: int  # prompt tokens that needed no estimate: token ids, media
    prompt_estimate: int
    reserved_tokens: int
    prompts: int
    answers: int  # choices of all prompts
    asked_tokens: int  # the most that one answer may have, as the client set it; -1: it set no limit
    retriable: bool  # near the threshold: a 400 was to be tried on the next pool
    traceparent: str

    def encode(self) -> str:
        values = (self.lease, self.model, self.entitlement, self.pool, self.api.value, self.category.value,
                  "1" if self.stream else "0", self.text_bytes, self.messages, self.known_tokens,
                  self.prompt_estimate, self.reserved_tokens, self.prompts, self.answers, self.asked_tokens,
                  "1" if self.retriable else "0",
                  self.traceparent)  # fmt: skip
        return _SEPARATOR.join((_VERSION, *map(str, values)))


def decode(text: str) -> Ticket | None:
    """None for what is no ticket of this version."""
    version, *values = text.split(_SEPARATOR)
    if version != _VERSION or len(values) != len(fields(Ticket)):
        return None
    lease, model, entitlement, pool, api, category, stream, *numbers, retriable, traceparent = values
    try:
        text_bytes, messages, known_tokens, prompt_estimate, reserved_tokens, prompts, answers, most = map(int, numbers)
        return Ticket(
            lease, model, entitlement, pool, Api(api), Category(category), stream == "1", text_bytes, messages,
            known_tokens, prompt_estimate, reserved_tokens, prompts, answers, most, retriable == "1", traceparent,
        )  # fmt: skip
    except ValueError:
        return None
