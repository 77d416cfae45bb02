"""A pseudo-tokenizer and a text generator.

Deterministic and quick; the bytes per token differ by kind of text as a real tokenizer's do.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator

IMAGE_TOKENS = 576  # a 336-pixel image in 14-pixel patches, as LLaVA-1.5 counts
AUDIO_TOKENS = 500
MESSAGE_OVERHEAD_TOKENS = 4  # <|im_start|>role ... <|im_end|> of a ChatML template
PROMPT_OVERHEAD_TOKENS = 3  # <|im_start|>assistant, which opens the answer

VOCABULARY_SIZE = 128_000

# Word pieces of up to six letters with the space before them, digits in threes, runs of white space, short pieces of
# other alphabets, and one token for anything else: CJK characters, punctuation, symbols.
# On this project's design text that gives 4.3 bytes a token, on its source 3.0, on Chinese 3.0, on compact JSON 1.9.
_PIECE = re.compile(r" ?[A-Za-z]{1,6}|[0-9]{1,3}|\s{1,16}|[\u00c0-\u1fff]{1,3}|.", re.DOTALL)

# Each is one piece with a space before it, so that an answer of n words counts as n tokens when it comes back as a
# prompt. None needs escaping in JSON.
_TEXT = (
    "the of and to in is that for it as with was on be by at this are or from have an they which one had not but what "
    "all were when we there can your said use each how time will up about out many then them these so some her "
    "will make like him into has look two more write go see no way could my than first water been call "
    "who oil its now find long down day did get come made may part over new sound take only work know place"
)


def count(text: str) -> int:
    return len(_PIECE.findall(text))


def token_ids(text: str) -> list[int]:
    return [zlib.crc32(piece.encode("utf-8", "surrogatepass")) % VOCABULARY_SIZE for piece in _PIECE.findall(text)]


def words(seed: int) -> Iterator[str]:
    """The tokens of an answer, without end; the first has no space before it."""
    vocabulary = _TEXT.split()
    source = random.Random(seed)  # noqa: S311 - text for a simulation
    yield source.choice(vocabulary)
    while True:
        yield " " + source.choice(vocabulary)
