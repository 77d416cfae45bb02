"""The benchmark's requests: the same again, as large as asked for, and tokenized whole."""

from __future__ import annotations

import json

import pytest

from extproc.bench import asks
from extproc.bench.packages import MissingPackage, folder


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize("kind", ["english", "tools", "chats"])
def test_a_seed_makes_the_same_requests_again(kind: str) -> None:
    assert asks.make(kind, 3, seed=1) == asks.make(kind, 3, seed=1) != asks.make(kind, 3, seed=2)


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize("size", [4000, 100_000])
def test_a_body_is_about_as_large_as_asked_for(size: int) -> None:
    assert len(asks.of_size("chinese", size, seed=0).body) == pytest.approx(size, rel=0.15)


@pytest.mark.usefixtures("texts")
def test_a_tokenizer_is_shown_all_of_the_text() -> None:
    ask = asks.of_size("english", 4000, seed=0)
    [text] = [message["content"] for message in json.loads(ask.body)["messages"] if message["role"] == "user"]
    assert f"user\n{text}" in ask.pieces


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(MissingPackage, match="no-such-package"):
        folder("no-such-package", "")
