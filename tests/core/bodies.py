"""Request bodies of the five APIs, for tests."""

from __future__ import annotations

import json
from typing import Any

from extproc.core.facts import Api, RequestFacts
from extproc.core.request import read

CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES = Api
PNG = "data:image/png;base64," + "A" * 5000


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages or [user("Hello")]), **more}


def part(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def completion(prompt: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": prompt, **more}


def embedding(texts: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "input": texts, **more}


def response(items: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "input": items, **more}


def anthropic(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 50, "messages": list(messages or [user("Hello")]), **more}


def encoded(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def facts_of(api: Api, body: bytes) -> RequestFacts:
    found = read(api, body)
    assert isinstance(found, RequestFacts), found
    return found
