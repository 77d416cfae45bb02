"""A request body to what it asks of the server, whatever its API: prompts in tokens, limits, how to answer.

Or to the error that vLLM answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from extproc.core.facts import Api
from extproc.sim import tokens
from extproc.sim.options import SimOptions

MAX_CHOICES = 128
LENGTH_SIGMA = 0.8  # of the logarithm: answers are mostly short, with a long tail
COMPLETIONS_MAX_TOKENS = 16  # what vLLM's and OpenAI's /v1/completions take where the client gives none
IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
AUDIO_PARTS = frozenset({"input_audio", "audio_url"})

# What reading a hostile body raises: no JSON, another shape or bad UTF-8 (both are ValueErrors), nested too deep.
_MALFORMED = (ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class Ask:
    model: str | None
    prompts: tuple[int, ...]  # tokens of each
    choices: int = 1
    max_output: int | None = None
    limit_name: str = "max_tokens"  # as this API calls max_output
    stream: bool = False
    usage: bool = False  # on the stream, at its end
    continuous_usage: bool = False  # on the stream, in every event
    ignore_eos: bool = False
    base64: bool = False  # how embeddings are written

    @property
    def prompt_tokens(self) -> int:
        return sum(self.prompts)


@dataclass(frozen=True, slots=True)
class Problem:
    """A request that is not served, as vLLM says it."""

    status: int
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """One sequence to generate."""

    prompt_tokens: int
    output_tokens: int
    finish_reason: str  # "stop" | "length"


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class _Message(msgspec.Struct):
    role: str
    content: str | list[Any] | None = None
    tool_calls: list[Any] | None = None


class _Chat(msgspec.Struct):
    messages: list[_Message]
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    tools: list[Any] | None = None
    ignore_eos: bool = False


class _Completions(msgspec.Struct):
    prompt: str | list[Any]
    model: str | None = None
    max_tokens: int | None = COMPLETIONS_MAX_TOKENS
    n: int | None = 1
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    ignore_eos: bool = False


class _Embeddings(msgspec.Struct):
    input: str | list[Any]
    model: str | None = None
    encoding_format: str = "float"


class _Responses(msgspec.Struct):
    input: str | list[Any]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = False
    tools: list[Any] | None = None


class _Messages(msgspec.Struct):
    messages: list[_Message]
    max_tokens: int
    model: str | None = None
    system: str | list[Any] | None = None
    stream: bool | None = False
    tools: list[Any] | None = None


class _Tokenize(msgspec.Struct):
    model: str | None = None
    prompt: str | None = None
    messages: list[_Message] | None = None
    tools: list[Any] | None = None


def read(api: Api, body: bytes) -> Ask | Problem:
    """What the body asks for; a Problem of status 400 where it is no JSON or not of the API's shape."""
    try:
        match api:
            case Api.CHAT:
                return _chat(msgspec.json.decode(body, type=_Chat))
            case Api.COMPLETIONS:
                return _completions(msgspec.json.decode(body, type=_Completions))
            case Api.EMBEDDINGS:
                return _embeddings(msgspec.json.decode(body, type=_Embeddings))
            case Api.RESPONSES:
                return _responses(msgspec.json.decode(body, type=_Responses))
            case Api.MESSAGES:
                return _messages(msgspec.json.decode(body, type=_Messages))
    except _MALFORMED as error:
        return Problem(400, str(error))


def read_tokenize(body: bytes) -> tuple[int, list[int]] | Problem:
    """How many tokens, and their ids where the request is a plain prompt."""
    try:
        asked = msgspec.json.decode(body, type=_Tokenize)
        if asked.messages is not None:
            return _conversation(asked.messages, asked.tools), []
    except _MALFORMED as error:
        return Problem(400, str(error))
    ids = tokens.token_ids(asked.prompt or "")
    return len(ids), ids


def check(ask: Ask, options: SimOptions, *, generates: bool) -> Problem | None:
    """What vLLM refuses: an unknown model, a limit or a prompt that alone is too long. Not their sum: that is cut."""
    if ask.model is not None and ask.model not in {options.model, *options.aliases}:
        return Problem(404, f"The model `{ask.model}` does not exist.", "model")
    if not 1 <= ask.choices <= MAX_CHOICES:
        return Problem(400, f"n must be between 1 and {MAX_CHOICES}, got {ask.choices}.", "n")
    return _check_limit(ask, options) or _check_prompts(ask, options, generates=generates)


def plan(ask: Ask, options: SimOptions, source: random.Random) -> tuple[Planned, ...]:
    """The sequences of a request that passed `check`, prompt by prompt."""
    return tuple(
        _plan_choice(ask, options, source, prompt, choice) for prompt in ask.prompts for choice in range(ask.choices)
    )


def _plan_choice(ask: Ask, options: SimOptions, source: random.Random, prompt: int, choice: int) -> Planned:
    # Further choices find their prompt in the prefix cache: they hold and read only what is theirs.
    own_prompt = prompt if choice == 0 else 1
    room = options.context_tokens - prompt
    most = room if ask.max_output is None else min(room, ask.max_output)
    if ask.ignore_eos or (ask.max_output is not None and not options.stops):
        return Planned(own_prompt, most, "length")
    natural = max(1, round(options.output_tokens * source.lognormvariate(0.0, LENGTH_SIGMA)))
    return Planned(own_prompt, min(natural, most), "stop" if natural <= most else "length")


def _check_limit(ask: Ask, options: SimOptions) -> Problem | None:
    if ask.max_output is None:
        return None
    if ask.max_output < 1:
        return Problem(400, f"{ask.limit_name} must be at least 1, got {ask.max_output}.", ask.limit_name)
    if ask.max_output > options.max_model_len:
        problem = f"{ask.limit_name}={ask.max_output} cannot be greater than max_model_len={options.max_model_len}"
        return Problem(400, problem, ask.limit_name)
    return None


def _check_prompts(ask: Ask, options: SimOptions, *, generates: bool) -> Problem | None:
    if not ask.prompts or min(ask.prompts) < 1:
        return Problem(400, "The prompt cannot be empty", "prompt")
    longest = max(ask.prompts)
    if longest + generates <= options.context_tokens:
        return None
    # vLLM stops counting one token past the limit, so the number it names is a lower bound.
    counted = min(longest, options.context_tokens + 1)
    return Problem(
        400,
        f"This model's maximum context length is {options.context_tokens} tokens. However, your prompt contains at "
        f"least {counted} input tokens. Please reduce the length of the input prompt. "
        f"(parameter=input_tokens, value={counted})",
        "input_tokens",
    )


def _chat(body: _Chat) -> Ask:
    streaming = body.stream_options or _StreamOptions()
    renamed = body.max_completion_tokens is not None
    return Ask(
        model=body.model,
        prompts=(_conversation(body.messages, body.tools),),
        choices=1 if body.n is None else body.n,
        max_output=body.max_completion_tokens if renamed else body.max_tokens,
        limit_name="max_completion_tokens" if renamed else "max_tokens",
        stream=bool(body.stream),
        usage=bool(streaming.include_usage),
        continuous_usage=bool(streaming.include_usage and streaming.continuous_usage_stats),
        ignore_eos=body.ignore_eos,
    )


def _completions(body: _Completions) -> Ask:
    streaming = body.stream_options or _StreamOptions()
    return Ask(
        model=body.model,
        prompts=_prompts(body.prompt),
        choices=1 if body.n is None else body.n,
        max_output=body.max_tokens,
        stream=bool(body.stream),
        usage=bool(streaming.include_usage),
        continuous_usage=bool(streaming.include_usage and streaming.continuous_usage_stats),
        ignore_eos=body.ignore_eos,
    )


def _embeddings(body: _Embeddings) -> Ask:
    return Ask(model=body.model, prompts=_prompts(body.input), base64=body.encoding_format == "base64")


def _responses(body: _Responses) -> Ask:
    prompt = tokens.PROMPT_OVERHEAD_TOKENS + _tool_tokens(body.tools)
    if body.instructions is not None:
        prompt += tokens.MESSAGE_OVERHEAD_TOKENS + tokens.count(body.instructions)
    items: list[Any] = [{"content": body.input}] if isinstance(body.input, str) else body.input
    prompt += sum(_item_tokens(item) for item in items)
    return Ask(
        model=body.model,
        prompts=(prompt,),
        max_output=body.max_output_tokens,
        limit_name="max_output_tokens",
        stream=bool(body.stream),
    )


def _messages(body: _Messages) -> Ask:
    system = 0 if body.system is None else tokens.MESSAGE_OVERHEAD_TOKENS + _content_tokens(body.system)
    return Ask(
        model=body.model,
        prompts=(system + _conversation(body.messages, body.tools),),
        max_output=body.max_tokens,
        stream=bool(body.stream),
    )


def _conversation(messages: Sequence[_Message], tools: list[Any] | None) -> int:
    read_tokens = sum(_content_tokens(message.content) + _tool_tokens(message.tool_calls) for message in messages)
    overhead = tokens.MESSAGE_OVERHEAD_TOKENS * len(messages) + tokens.PROMPT_OVERHEAD_TOKENS
    return read_tokens + overhead + _tool_tokens(tools)


def _content_tokens(content: str | list[Any] | None) -> int:
    if content is None:
        return 0
    return tokens.count(content) if isinstance(content, str) else sum(_part_tokens(part) for part in content)


def _part_tokens(part: object) -> int:
    if not isinstance(part, dict):
        return tokens.count(part) if isinstance(part, str) else _json_tokens(part)
    kind = part.get("type")
    if kind in IMAGE_PARTS:
        return tokens.IMAGE_TOKENS
    if kind in AUDIO_PARTS:
        return tokens.AUDIO_TOKENS
    text = part.get("text")
    return tokens.count(text) if isinstance(text, str) else _json_tokens(part)


def _item_tokens(item: object) -> int:
    """One item of the Responses API's input: a message, or a call or result of a function, read as JSON."""
    content = item.get("content") if isinstance(item, dict) else None
    if isinstance(content, (str, list)):
        return tokens.MESSAGE_OVERHEAD_TOKENS + _content_tokens(content)
    return tokens.MESSAGE_OVERHEAD_TOKENS + _json_tokens(item)


def _tool_tokens(tools: list[Any] | None) -> int:
    return _json_tokens(tools) if tools else 0


def _json_tokens(value: object) -> int:
    return tokens.count(msgspec.json.encode(value).decode())


def _prompts(prompt: str | list[Any]) -> tuple[int, ...]:
    """One string, a list of strings, token ids, or lists of token ids: the tokens of each prompt."""
    if isinstance(prompt, str):
        return (tokens.count(prompt),)
    if prompt and all(isinstance(token, int) for token in prompt):
        return (len(prompt),)
    return tuple(_one_prompt(entry) for entry in prompt)


def _one_prompt(entry: object) -> int:
    if isinstance(entry, str):
        return tokens.count(entry)
    if isinstance(entry, list) and all(isinstance(token, int) for token in entry):
        return len(entry)
    raise ValueError("a prompt is a string or a list of token ids")
