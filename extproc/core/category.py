"""Tells kinds of text apart by cheap byte features of a bounded sample, for each has its own bytes per token.

It costs microseconds: everything is a count or a translate that runs in C.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from operator import itemgetter

from extproc.core.facts import Category

SAMPLE_CHARACTERS = 1024
SAMPLED_TEXTS = 4


def _bytes(*ranges: tuple[int, int]) -> bytes:
    return b"".join(bytes(range(first, last + 1)) for first, last in ranges)


# First bytes of UTF-8 characters; all others are ASCII or come after one. C2-CD, accented Latin, stay with prose.
_NOT_FIRST = _bytes((0x00, 0xBF))
_HAN = _bytes((0xE4, 0xE9))
_KANA = b"\xe3"  # and CJK punctuation
_HANGUL = _bytes((0xEA, 0xED))
_SCRIPTS = (
    (Category.ARABIC, _bytes((0xD8, 0xDB))),
    (Category.INDIC, b"\xe0"),  # and Thai, Lao, Tibetan
    (Category.CYRILLIC, _bytes((0xD0, 0xD3))),
    # Greek, Armenian, Hebrew, Syriac and their neighbours, Georgian, Vietnamese letters, emoji
    (Category.OTHER, _bytes((0xCE, 0xCF), (0xD4, 0xD7), (0xDC, 0xDF), (0xE1, 0xE1), (0xF0, 0xF0))),
)
_CODE_MARKS = b"{}()[];=<>_"
_JSON_MARKS = b'"{}[]:,'
_SPACES = b" \n\t\r"
_DIGITS = b"0123456789"

_CJK_SHARE = 0.15  # of characters; an ideograph weighs about as much as an English word
_JAPANESE_KANA = 0.25  # of kana and ideographs; Chinese has only punctuation there
_SCRIPT_SHARE = 0.30  # of characters
_OTHER_MIN_SPACES = 0.04  # prose has about 0.17, code 0.15 to 0.35, base64 and hashes next to none
_LOG_DIGITS = 0.05  # prose has 0.01, code 0.02; time stamps, sizes and numbers 0.1 and more
_JSON_MARK_SHARE = 0.10  # where the text opens like JSON
_JSON_KEY_SHARE = 0.006  # `":` within any text: more than code's dictionary literals have
_CODE_MARK_SHARE = 0.045  # prose has 0.01, source files 0.05 to 0.15
_CODE_MARK_SHARE_INDENTED = 0.02  # where the lines are indented, or fenced off as code
_INDENTED_LINES = 0.35
_CODE_MIN_MARKS = 4  # one pair of brackets in a short question is not code
_SHORT = 48  # characters; shares of less than that say little


def sample(texts: Sequence[str]) -> str:
    """The beginnings and middles of the largest texts, at most SAMPLE_CHARACTERS in all."""
    few = len(texts) <= SAMPLED_TEXTS  # a heap costs more than that to set up
    largest = sorted(texts, key=len, reverse=True) if few else heapq.nlargest(SAMPLED_TEXTS, texts, key=len)
    if sum(map(len, largest)) <= SAMPLE_CHARACTERS:
        return "\n".join(largest)[:SAMPLE_CHARACTERS]
    half = SAMPLE_CHARACTERS // len(largest) // 2 - 1  # one character less, for the line break
    pieces: list[str] = []
    for text in largest:
        pieces.append(text[:half])
        middle = max(half, len(text) // 2)
        pieces.append(text[middle : middle + half])
    return "\n".join(pieces)


def classify(sample: str) -> Category:
    """The kind of text that a sample shows; PROSE where it is empty."""
    if not sample:
        return Category.PROSE
    data = sample.encode("utf-8", "surrogatepass")
    script = _script(data, len(sample)) if len(data) > len(sample) else None
    if script is not None:
        return script
    if _is_json(data):
        return Category.JSON
    if len(data) > _SHORT and _count(data, _SPACES) < _OTHER_MIN_SPACES * len(data):
        return Category.OTHER
    if len(data) > _SHORT and _count(data, _DIGITS) > _LOG_DIGITS * len(data):
        return Category.LOGS
    return Category.CODE if _is_code(data) else Category.PROSE


def _script(data: bytes, characters: int) -> Category | None:
    """None where most of it is Latin."""
    firsts = data.translate(None, _NOT_FIRST)
    han, kana, hangul = _count(firsts, _HAN), _count(firsts, _KANA), _count(firsts, _HANGUL)
    if han + kana + hangul > _CJK_SHARE * characters:
        if hangul >= max(han, kana):
            return Category.KOREAN
        return Category.JAPANESE if kana > _JAPANESE_KANA * (han + kana) else Category.CHINESE
    counts = [(_count(firsts, leads), category) for category, leads in _SCRIPTS]
    most, category = max(counts, key=itemgetter(0))
    return category if most > _SCRIPT_SHARE * characters else None


def _count(data: bytes, marks: bytes) -> int:
    return len(data) - len(data.translate(None, marks))


def _is_json(data: bytes) -> bool:
    if data.count(b'":') > _JSON_KEY_SHARE * len(data):
        return True
    return (
        data.lstrip()[:1] in (b"{", b"[") and b'"' in data and _count(data, _JSON_MARKS) > _JSON_MARK_SHARE * len(data)
    )


def _is_code(data: bytes) -> bool:
    marks = _count(data, _CODE_MARKS)
    if marks > _CODE_MARK_SHARE * len(data):
        return marks >= _CODE_MIN_MARKS
    if marks < _CODE_MARK_SHARE_INDENTED * len(data):
        return False
    lines = data.count(b"\n")
    indented = data.count(b"\n  ") + data.count(b"\n\t")
    return b"```" in data or indented > _INDENTED_LINES * max(lines, 3)
