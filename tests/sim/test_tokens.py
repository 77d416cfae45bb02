from __future__ import annotations

import time
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.sim import tokens

PROSE = "Every request costs tokens, and a tenant may spend only what the fleet has promised to it for this second. "
CODE = "def budget(size: int) -> int:\n    return math.ceil(size / (ratio - sigmas * deviation)) + output\n"
CJK = "令牌池位于负载均衡器旁边为许多租户共享的服务器提供服务。"
JSON = '{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}},"n":12345}'


@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param("", 0, id="nothing"),
        pytest.param("the tenant", 2, id="short words with the space before them"),
        pytest.param("throughput", 2, id="a long word in pieces of six"),
        pytest.param("1234567", 3, id="digits in threes"),
        pytest.param("(a, b)", 5, id="punctuation singly"),
        pytest.param("令牌", 2, id="one for each CJK character"),
        pytest.param("\n        x", 2, id="indentation at once"),
        pytest.param("привет", 2, id="other alphabets in threes"),
        pytest.param("🙂🙂", 2, id="one for each symbol"),
    ],
)
def test_tokens_are_counted(text: str, count: int) -> None:
    assert tokens.count(text) == count


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        pytest.param(PROSE, 3.9, 5.0, id="prose"),
        pytest.param(CODE, 2.3, 3.5, id="code"),
        pytest.param(CJK, 2.9, 3.1, id="CJK"),
        pytest.param(JSON, 1.5, 2.3, id="JSON"),
    ],
)
def test_bytes_per_token_differ_by_kind_of_text(text: str, low: float, high: float) -> None:
    assert low < len(text.encode()) / tokens.count(text) < high


@pytest.mark.parametrize("text", [PROSE, CODE, CJK, JSON], ids=["prose", "code", "cjk", "json"])
def test_a_megabyte_is_counted_quickly(text: str) -> None:
    megabyte = text * (1_000_000 // len(text.encode()) + 1)
    spent = []
    for _ in range(3):  # the best of three: other work on the machine is not what is measured
        started = time.process_time()
        tokens.count(megabyte)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.2  # 30 to 70 ms when written; slower machines run this, too


@given(st.text())
def test_any_text_has_as_many_ids_as_tokens(text: str) -> None:
    ids = tokens.token_ids(text)
    assert len(ids) == tokens.count(text)
    assert all(0 <= token < tokens.VOCABULARY_SIZE for token in ids)


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 200))
def test_an_answer_counts_as_many_tokens_as_it_has_words_and_is_the_same_again(seed: int, length: int) -> None:
    text = "".join(islice(tokens.words(seed), length))
    assert tokens.count(text) == length
    assert text == "".join(islice(tokens.words(seed), length))
