"""Adds up what a model will read of a request: text in UTF-8 bytes, token ids exactly, media by number."""

from __future__ import annotations

from typing import cast

import msgspec
from msgspec import Raw

from extproc.core import bodies
from extproc.core.bodies import NOTHING
from extproc.core.category import classify, sample
from extproc.core.facts import Api, Category, RequestFacts

VIDEO_IMAGES = 32  # vLLM's VideoMediaIO samples 32 frames of a video unless told otherwise
SHORT_BYTES = 64  # roles, names and ids up to this size are part of a message's learned overhead
_IMAGE_TYPES = frozenset({"image", "image_url", "input_image", "image_embeds", "image_pil", "computer_screenshot"})
_AUDIO_TYPES = frozenset({"input_audio", "audio_url", "audio_embeds"})
EMPTY_VALUES = frozenset({b"", b"null", b"[]", b"{}"})


def utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


class Reading:
    """What one request has shown so far."""

    __slots__ = (
        "audios",
        "exact_tokens",
        "images",
        "longest_bytes",
        "longest_tokens",
        "messages",
        "raw_bytes",
        "texts",
        "tool_results",
    )

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.raw_bytes = 0  # of values that are shown to the model as JSON
        self.exact_tokens = 0
        self.longest_bytes = 0  # of several prompts
        self.longest_tokens = 0
        self.messages = 0
        self.tool_results = 0
        self.images = 0
        self.audios = 0

    def facts(
        self, api: Api, body: bodies.Body, max_output: int | None, choices: int | None = 1, prompts: int = 1
    ) -> RequestFacts:
        text_bytes = sum(map(utf8_bytes, self.texts))
        options = body.stream_options
        return RequestFacts(
            api=api,
            model=body.model,
            category=Category.JSON if self.raw_bytes > text_bytes else classify(sample(self.texts)),
            text_bytes=text_bytes + self.raw_bytes,
            exact_tokens=self.exact_tokens,
            messages=self.messages,
            images=self.images,
            audios=self.audios,
            max_output=max_output,
            choices=choices or 1,
            prompts=prompts,
            longest_text_bytes=self.longest_bytes,
            longest_exact_tokens=self.longest_tokens,
            stream=bool(body.stream),
            usage_asked=bool(options and options.include_usage),
        )

    def text(self, text: str | None) -> None:
        if text:
            self.texts.append(text)

    def label(self, text: str | None) -> None:
        """A role, name or id: counted only where it is long enough to hide a prompt in."""
        if text and len(text) > SHORT_BYTES:
            self.texts.append(text)

    def value(self, raw: Raw) -> None:
        """Text, or any other value, which the model is shown as JSON."""
        if raw is NOTHING:
            return
        data = bytes(raw)
        if data.startswith(b'"'):
            self.text(msgspec.json.decode(data, type=str))
        elif data not in EMPTY_VALUES:
            self.raw_bytes += len(data)

    def content(self, content: bodies.Content) -> None:
        if isinstance(content, list):
            for part in content:
                if isinstance(part, str):
                    self.text(part)
                else:
                    self.part(part)
        else:
            self.text(content)

    def part(self, part: bodies.Part) -> None:
        self.text(part.text)
        self.text(part.refusal)
        self.text(part.thinking)
        self.text(part.name)
        self.value(part.input)
        self.media(part)
        if part.type == "prompt_embeds":
            self.value(part.data)  # far too many bytes for its tokens, but never too few
        if part.type == "tool_result":
            self.tool_results += 1
        if part.content is not None:
            self.content(part.content)

    def media(self, part: bodies.Part) -> None:
        kind = part.type
        if kind in _IMAGE_TYPES or part.image_url is not NOTHING or part.image_embeds is not NOTHING:
            self.images += 1
        if kind in _AUDIO_TYPES or part.input_audio is not NOTHING or part.audio_url is not NOTHING:
            self.audios += 1
        if kind == "video_url" or part.video_url is not NOTHING:
            self.images += VIDEO_IMAGES

    def chat(self, messages: list[bodies.Message]) -> None:
        for message in messages:
            self.label(message.role)
            self.label(message.name)
            self.label(message.tool_call_id)
            self.content(message.content)
            for call in message.tool_calls or ():
                self.call(call.function)
            self.call(message.function_call)
            self.reasoning(message)
        self.messages += len(messages)

    def reasoning(self, message: bodies.Message) -> None:
        """The older name of the field counts only where vLLM falls back to it."""
        if message.reasoning is not NOTHING and bytes(message.reasoning) not in EMPTY_VALUES:
            self.value(message.reasoning)
        else:
            self.value(message.reasoning_content)

    def call(self, function: bodies.Function | None) -> None:
        if function is not None:
            self.text(function.name)
            self.text(function.arguments)

    def blocks(self, messages: list[bodies.Message]) -> None:
        """Anthropic's messages: vLLM makes a message of its own of every tool result."""
        for message in messages:
            results = self.tool_results
            self.label(message.role)
            self.content(message.content)
            results = self.tool_results - results
            parts = len(message.content) if isinstance(message.content, list) else 1
            self.messages += results + (parts > results)

    def items(self, items: list[bodies.Item]) -> None:
        for item in items:
            self.label(item.role)
            self.text(item.name)
            self.content(item.content)
            self.value(item.arguments)
            self.value(item.input)
            if isinstance(item.output, bodies.Part):
                self.part(item.output)
            else:
                self.content(item.output)
            for part in item.summary or ():
                self.part(part)
        self.messages += len(items)

    def prompts(self, prompt: bodies.Prompt) -> int | None:
        """How many prompts there are; None where there is none, or where their kinds are mixed."""
        if isinstance(prompt, str):
            self.text(prompt)
            return 1
        kinds = set(map(type, prompt or ()))
        if kinds == {str}:
            texts = cast("list[str]", prompt)  # just checked, in C
            self.texts.extend(texts)
            self.longest_bytes = max(map(utf8_bytes, texts))
        elif kinds == {list}:
            lengths = [len(ids) for ids in cast("list[list[int]]", prompt)]
            self.exact_tokens += sum(lengths)
            self.longest_tokens = max(lengths)
        elif kinds == {int}:
            self.exact_tokens += len(prompt or ())
            return 1
        return len(prompt or ()) if len(kinds) == 1 else None
