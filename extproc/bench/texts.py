"""Real text in many kinds, from packages and from Python itself. Every kind is a list of sources, each a few documents.

Where they come from, and under which licences: docs/estimator.md.
"""

from __future__ import annotations

import pydoc_data.topics
import re
import sysconfig
from collections.abc import Iterator
from email.message import Message
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import cast

from extproc.bench import logs, services
from extproc.bench.packages import contents, folder, translations

Source = tuple[str, ...]  # documents of one origin and one style
STDLIB_BYTES = 3_000_000  # of sources read
_TALKS = "chatterbot_corpus/data"
_ENTRY = re.compile(r"^\s*-?\s*-\s+(.*)$")


@cache
def english() -> tuple[Source, ...]:
    """Documentation, READMEs, licences, and the prose in descriptions of services."""
    topics: dict[str, str] = pydoc_data.topics.topics
    return (tuple(topics.values()), _readmes(), services.documentation())


@cache
def code() -> tuple[Source, ...]:
    """Python, JavaScript, C headers, Cython, HTML templates."""
    django, numpy = folder("django", "django"), folder("numpy", "numpy")
    return (
        stdlib(),
        tuple(contents(django, "**/static/**/*[!n].js")),  # none that is minified
        tuple(contents(numpy, "**/*.h")),
        tuple(contents(numpy, "**/*.py[xdi]")),
        tuple(contents(django, "**/templates/**/*.html")),
    )


@cache
def data() -> tuple[Source, ...]:
    """JSON: examples of requests and answers, and models of services; compact, spaced and indented."""
    return services.examples(), services.models()


@cache
def written_logs() -> tuple[Source, ...]:
    return (logs.imports(),), (logs.import_times(),), (logs.accesses(),), (logs.debugging(services.SERVICES),)


@cache
def chinese() -> tuple[Source, ...]:
    return (
        (_django("zh_Hans"), _plone("zh_CN"), _jupyter("zh-cn", "zh_CN")),
        _talks("chinese"),
        (_django("zh_Hant"), _plone("zh_TW"), *_talks("traditionalchinese")),
    )


@cache
def japanese() -> tuple[Source, ...]:
    return (_django("ja"), _plone("ja"), _jupyter("ja-jp", "ja_JP")), _talks("japanese")


@cache
def korean() -> tuple[Source, ...]:
    return (_django("ko"), _plone("ko"), _jupyter("ko-kr", "ko_KR")), _talks("korean")


@cache
def arabic() -> tuple[Source, ...]:
    """Arabic translations, and Persian dialogues."""
    return (_django("ar"), _plone("ar")), _talks("persian")


@cache
def hindi() -> tuple[Source, ...]:
    return ((_django("hi"), _plone("hi"), *_talks("hindi")),)


@cache
def russian() -> tuple[Source, ...]:
    """Russian and Ukrainian."""
    return (_django("ru"), _plone("ru"), *_talks("russian")), (_django("uk"), _plone("uk"), *_talks("ukrainian"))


@cache
def dialogues() -> tuple[tuple[str, ...], ...]:
    """Turns of English conversations."""
    root = folder("chatterbot-corpus", f"{_TALKS}/english")
    return tuple(turns for text in contents(root, "*.yml") for turns in _conversations(text))


def stdlib(most_bytes: int = STDLIB_BYTES) -> Source:
    root, found, size = Path(sysconfig.get_paths()["stdlib"]), [], 0
    for text in contents(root, "*.py"):
        found.append(text)
        size += len(text)
        if size > most_bytes:
            break
    return tuple(found)


def _readmes() -> Source:
    """What installed packages say of themselves."""
    texts = (cast("Message", package.metadata).get_payload() for package in distributions())
    return tuple(sorted({text for text in texts if isinstance(text, str) and len(text) > 2000}))  # noqa: PLR2004 - a page


def _django(language: str) -> str:
    return translations(folder("django", "django"), f"**/locale/{language}/LC_MESSAGES/*.mo")


def _plone(language: str) -> str:
    return translations(folder("plone-app-locales", "plone/app/locales/locales"), f"{language}/LC_MESSAGES/*.mo")


def _jupyter(package: str, language: str) -> str:
    root = folder(f"jupyterlab-language-pack-{package}", f"jupyterlab_language_pack_{language}")
    return translations(root, "locale/*/LC_MESSAGES/*.mo")


def _talks(language: str) -> Source:
    """Each file of dialogues, a turn a line."""
    root = folder("chatterbot-corpus", f"{_TALKS}/{language}")
    return tuple("\n".join(map("\n".join, _conversations(text))) for text in contents(root, "*.yml"))


def _conversations(text: str) -> Iterator[tuple[str, ...]]:
    """The corpus is a list of lists in YAML, of which one line is one turn."""
    turns: list[str] = []
    for line in text.partition("conversations:")[2].splitlines():
        entry = _ENTRY.match(line)
        if entry is None:
            continue
        if line.lstrip().startswith("- -") and turns:
            yield tuple(turns)
            turns = []
        turns.append(entry[1].strip("'\""))
    if turns:
        yield tuple(turns)
