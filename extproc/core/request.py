"""Reads a request's body as far as its cost depends on it, and asks for usage on behalf of streaming clients.

What vLLM would read is what counts; a body that vLLM could read otherwise than we do is refused, never guessed at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import msgspec
from msgspec import Raw, Struct

from extproc.core import bodies
from extproc.core.facts import Api, RequestFacts
from extproc.core.reading import EMPTY_VALUES, SHORT_BYTES, Reading
from extproc.core.refusal import Reason, Refusal

MAX_NESTED = 1 << 19  # objects and arrays in one body: 32 MiB of `{},` would decode into more than a gigabyte
MAX_COMMAS = 1 << 20  # hence values: 30 MiB of `"x",` would take seconds to decode, and everybody else's time

# No smaller body can hold so many: `{},` are three bytes, and what is nested deeper than that does not decode.
_LEAST_NESTED_BYTES = 3 * MAX_NESTED
_LEAST_COMMA_BYTES = 2 * MAX_COMMAS

SAMPLED_BYTES = 16 * 1024  # at each end of a body

_APIS = {api.value: api for api in Api}
_PROMPT_FORMS = "a string, a list of strings, a list of token ids, or a list of such lists"
_MISSING = re.compile(r"missing required field `(\w+)`")
_PATH = re.compile(r" - at `\$\.(\w+)")


def api_of(path: str) -> Api | None:
    """The operation that a request's path names; None for every other path."""
    return _APIS.get(path.partition("?")[0].removesuffix("/"))


def read(api: Api, body: bytes) -> RequestFacts | Refusal:
    """What a body costs, or a 400 that says what is wrong with it. No bytes make it raise."""
    excess = _too_many(body)
    if excess is not None:
        return excess
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into the text of fields that it skips
        return _READERS[api](body)
    except msgspec.ValidationError as error:
        return _wrong_field(str(error))
    except msgspec.DecodeError as error:
        return _not_json(str(error), body)
    except UnicodeDecodeError as error:
        return _invalid(f"The body is not valid UTF-8 (byte {error.start}).")
    except RecursionError:
        return _invalid("The body is nested too deeply.")


def fingerprint(body: bytes) -> str:
    """Tells whether the same is asked again. A body itself is kept nowhere.

    Its length and both ends are enough: agents that send a growing conversation differ at its end, batches over one
    document at either. Two that are alike in all this are counted as one, which costs nobody anything but a little
    of the demand that is seen. So 32 MiB take no longer than 32 KiB: about 40 µs.
    """
    digest = hashlib.blake2b(b"%d" % len(body), digest_size=8)
    digest.update(body[:SAMPLED_BYTES])
    digest.update(body[max(SAMPLED_BYTES, len(body) - SAMPLED_BYTES) :])
    return digest.hexdigest()


def ask_for_usage(body: bytes, facts: RequestFacts) -> bytes | None:
    """The body with `stream_options.include_usage` set, for a stream whose client did not ask; None: leave it as it is.

    `body` is one that `read` accepted. The rest of it is not serialised again: of duplicate keys Python's json, and so
    vLLM, takes the last.
    """
    if facts.api not in (Api.CHAT, Api.COMPLETIONS) or not facts.stream or facts.usage_asked:
        return None
    options = dict(_USAGE.decode(body).stream_options or {})
    options["include_usage"] = Raw(b"true")
    opened = body.rstrip(b" \t\r\n").removesuffix(b"}").rstrip(b" \t\r\n")
    comma = b"" if opened.endswith(b"{") else b","
    return b'%b%b"stream_options":%b}' % (opened, comma, msgspec.json.encode(options))


class _UsageOptions(Struct, gc=False):
    stream_options: dict[str, Raw] | None = None


_USAGE = msgspec.json.Decoder(_UsageOptions)
_CHAT = msgspec.json.Decoder(bodies.ChatBody)
_COMPLETION = msgspec.json.Decoder(bodies.CompletionBody)
_EMBEDDING = msgspec.json.Decoder(bodies.EmbeddingBody)
_RESPONSE = msgspec.json.Decoder(bodies.ResponseBody)
_ANTHROPIC = msgspec.json.Decoder(bodies.AnthropicBody)


def _read_chat(data: bytes) -> RequestFacts | Refusal:
    body = _CHAT.decode(data)
    reading = Reading()
    reading.chat(body.messages)
    for raw in (body.tools, body.functions, body.documents):
        reading.value(raw)
    if len(bytes(body.chat_template_kwargs)) > SHORT_BYTES:
        reading.value(body.chat_template_kwargs)
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return reading.facts(Api.CHAT, body, limit, body.n)


def _read_completion(data: bytes) -> RequestFacts | Refusal:
    body = _COMPLETION.decode(data)
    if bytes(body.prompt_embeds) not in EMPTY_VALUES:
        return _invalid("prompt_embeds: the tokens of embedded prompts cannot be counted.", "prompt_embeds")
    reading = Reading()
    prompts = reading.prompts(body.prompt)
    if prompts is None:
        return _invalid(f"prompt: {_PROMPT_FORMS} is needed.", "prompt")
    reading.text(body.suffix)
    return reading.facts(Api.COMPLETIONS, body, body.max_tokens, body.n, prompts)


def _read_embedding(data: bytes) -> RequestFacts | Refusal:
    body = _EMBEDDING.decode(data)
    reading = Reading()
    reading.chat(body.messages or [])
    if body.input is None and body.messages:
        return reading.facts(Api.EMBEDDINGS, body, 0)
    prompts = reading.prompts(body.input)
    if prompts is None:
        return _invalid(f"input: {_PROMPT_FORMS} is needed.", "input")
    return reading.facts(Api.EMBEDDINGS, body, 0, prompts=prompts)


def _read_response(data: bytes) -> RequestFacts | Refusal:
    body = _RESPONSE.decode(data)
    if body.background:
        return _invalid("background is not served: send the request without it.", "background")
    if body.previous_response_id:
        message = "previous_response_id is not served: send the whole conversation as input."
        return _invalid(message, "previous_response_id")
    reading = Reading()
    if body.instructions:
        reading.text(body.instructions)
        reading.messages += 1
    if isinstance(body.input, str):
        reading.text(body.input)
        reading.messages += 1
    else:
        reading.items(body.input)
    for raw in (body.tools, body.previous_input_messages, body.previous_response):
        reading.value(raw)
    return reading.facts(Api.RESPONSES, body, body.max_output_tokens)


def _read_anthropic(data: bytes) -> RequestFacts | Refusal:
    body = _ANTHROPIC.decode(data)
    reading = Reading()
    if body.system:
        reading.content(body.system)
        reading.messages += 1
    reading.blocks(body.messages)
    reading.value(body.tools)
    return reading.facts(Api.MESSAGES, body, body.max_tokens)


_READERS: dict[Api, Callable[[bytes], RequestFacts | Refusal]] = {
    Api.CHAT: _read_chat,
    Api.COMPLETIONS: _read_completion,
    Api.EMBEDDINGS: _read_embedding,
    Api.RESPONSES: _read_response,
    Api.MESSAGES: _read_anthropic,
}


def _wrong_field(found: str) -> Refusal:
    missing = _MISSING.search(found)
    path = _PATH.search(found)
    if missing and not path:
        return _invalid(f"{missing[1]}: this field is required.", missing[1])
    if not path:
        return _invalid(f"The body must be a JSON object: {found}.")
    return _invalid(f"{path[1]}: {found}.", path[1])


def _not_json(found: str, body: bytes) -> Refusal:
    if not body:
        return _invalid("The request has no body.")
    if "truncated" in found:  # what msgspec says of both
        found = "it ends too early, or holds an unpaired surrogate such as \\ud83d"
    return _invalid(f"The body is not valid JSON: {found}.")


def _too_many(body: bytes) -> Refusal | None:
    """What would take too much time or memory to decode."""
    if len(body) > _LEAST_NESTED_BYTES and body.count(b"{") + body.count(b"[") > MAX_NESTED:
        return _invalid(f"The body holds more than {MAX_NESTED} objects and arrays.")
    if len(body) > _LEAST_COMMA_BYTES and body.count(b",") > MAX_COMMAS:
        return _invalid(f"The body holds more than {MAX_COMMAS} commas.")
    return None


def _invalid(message: str, param: str | None = None) -> Refusal:
    return Refusal(status=400, reason=Reason.INVALID_REQUEST, message=message, param=param)
