"""The parts of the five APIs' request bodies on which cost depends. msgspec skips everything else in C."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

MAX_CHOICES = 128  # OpenAI's limit of `n`
MAX_OUTPUT_TOKENS = 1_000_000_000  # beyond any model; keeps sums of tokens far from 2^53, where Lua's integers end
COMPLETION_DEFAULT_TOKENS = 16  # where `max_tokens` is left out; an explicit null means "up to the model's length"

_Model = Annotated[str, Meta(min_length=1, max_length=256)]
_Limit = Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)]
_Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
_TokenId = Annotated[int, Meta(ge=0)]
NOTHING = Raw()  # a field that is not there


class Part(Struct, gc=False):
    """A content part or block, of any of the APIs."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    thinking: str | None = None
    name: str | None = None  # of a tool_use
    input: Raw = NOTHING  # of a tool_use
    content: str | list[str | Part] | None = None  # of a tool_result
    data: Raw = NOTHING  # of prompt_embeds
    # Media are known by their key as well as by their type: vLLM goes by either.
    image_url: Raw = NOTHING
    image_embeds: Raw = NOTHING
    input_audio: Raw = NOTHING
    audio_url: Raw = NOTHING
    audio_embeds: Raw = NOTHING
    video_url: Raw = NOTHING


Content = str | list[str | Part] | None


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, gc=False):
    function: Function | None = None


class Message(Struct, gc=False):
    role: str
    content: Content = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    reasoning: Raw = NOTHING
    reasoning_content: Raw = NOTHING  # the older name; vLLM reads it where `reasoning` is missing


class Item(Struct, gc=False):
    """An input item of the responses API: a message, a tool's call or its output, reasoning."""

    role: str | None = None
    content: Content = None
    name: str | None = None
    arguments: Raw = NOTHING
    input: Raw = NOTHING
    output: str | list[str | Part] | Part | None = None
    summary: list[Part] | None = None


Messages = Annotated[list[Message], Meta(min_length=1)]


class StreamOptions(Struct, gc=False):
    include_usage: bool | None = None


class Body(Struct, gc=False):
    model: _Model
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class ChatBody(Body, gc=False, kw_only=True):
    messages: Messages
    tools: Raw = NOTHING
    functions: Raw = NOTHING
    documents: Raw = NOTHING
    chat_template_kwargs: Raw = NOTHING  # some templates print theirs
    max_tokens: _Limit | None = None
    max_completion_tokens: _Limit | None = None
    n: _Choices | None = None


Prompt = str | list[str | _TokenId | list[_TokenId]] | None


class CompletionBody(Body, gc=False, kw_only=True):
    prompt: Prompt = None
    prompt_embeds: Raw = NOTHING
    suffix: str | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_OUTPUT_TOKENS)] | None = COMPLETION_DEFAULT_TOKENS  # 0: to echo only
    n: _Choices | None = None


class EmbeddingBody(Body, gc=False, kw_only=True):
    input: Prompt = None
    messages: list[Message] | None = None


class ResponseBody(Body, gc=False, kw_only=True):
    input: str | list[Item]
    instructions: str | None = None
    tools: Raw = NOTHING
    previous_input_messages: Raw = NOTHING
    previous_response: Raw = NOTHING
    max_output_tokens: _Limit | None = None
    background: bool | None = None
    previous_response_id: str | None = None


class AnthropicBody(Body, gc=False, kw_only=True):
    messages: Messages
    max_tokens: _Limit
    system: Content = None
    tools: Raw = NOTHING
