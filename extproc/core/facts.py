"""What a request's body says, as far as its cost depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from extproc.core.refusal import ErrorShape


class Api(StrEnum):
    """The operations whose tokens are budgeted, by path."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    RESPONSES = "/v1/responses"
    MESSAGES = "/v1/messages"

    @property
    def error_shape(self) -> ErrorShape:
        return ErrorShape.ANTHROPIC if self is Api.MESSAGES else ErrorShape.OPENAI


class Category(StrEnum):
    """Kinds of text whose bytes per token differ; told apart by cheap byte features."""

    PROSE = "prose"
    CODE = "code"
    JSON = "json"
    LOGS = "logs"  # and tables of numbers
    CHINESE = "chinese"
    JAPANESE = "japanese"
    KOREAN = "korean"
    ARABIC = "arabic"
    INDIC = "indic"
    CYRILLIC = "cyrillic"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The part of a request body that decides its cost."""

    api: Api
    model: str
    category: Category
    text_bytes: int  # UTF-8 bytes of what the model will read, of all prompts together
    exact_tokens: int = 0  # token ids given by the client: no estimate needed
    messages: int = 0  # each adds the chat template's overhead
    images: int = 0
    audios: int = 0
    max_output: int | None = None  # the most one choice may generate; None where the client set no limit
    choices: int = 1  # n: how many answers to each prompt
    prompts: int = 1  # completions and embeddings take a list of prompts in one request
    longest_text_bytes: int = 0  # of the longest of several prompts; where there is one, it is all
    longest_exact_tokens: int = 0
    stream: bool = False
    usage_asked: bool = False  # the client itself asked for usage on the stream
