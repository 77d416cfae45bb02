"""Which kind of text a sample is taken for."""

from __future__ import annotations

import argparse
import base64
import inspect
import json
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.category import SAMPLE_CHARACTERS, SAMPLED_TEXTS, classify, sample
from extproc.core.facts import Category

PROSE, CODE, JSON, OTHER = Category.PROSE, Category.CODE, Category.JSON, Category.OTHER

ENGLISH = """The committee met on Tuesday (its third session this year) and heard from 14 witnesses. "We were not told,"
said one of them; others disagreed. By the end of the day it was clear that nobody had read the report, that the budget
had been exceeded by 3.5 million, and that the bridge would not be finished before spring. """
GERMAN = (
    "Über die Brücke führt kein Weg zurück, sagte er und schloss die Tür. Das Mädchen hörte ihm längst nicht mehr zu. "
)
FRENCH = "L'été dernier, les élèves ont visité un château où l'on fabriquait jadis des étoffes précieuses. "
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. "  # noqa: RUF001 - it is meant
ARABIC = "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. "
HINDI = "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। "
GREEK = "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. "  # noqa: RUF001 - it is meant
CHINESE = "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。"
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. "
C_SOURCE = """
static int find(const struct node *list, int key)
{
    for (; list; list = list->next)
        if (list->key == key)
            return list->value;
    return -1;
}
"""
MARKDOWN = """Why does this fail?
```python
def f(x):
    y = x[0]
    return g(y, x)
```
It says that `x` is not a list.
"""
ACCESS_LOG = '127.0.0.1 - - [28/Nov/2026 11:09:10] "GET /v1/models HTTP/1.1" 200 1784 "-" "curl/7.88.1" 0.004\n'
RECORDS = [{"id": number, "name": "Ann Lee", "tags": ["a", "b"], "score": 0.5} for number in range(50)]

SAMPLES = [
    ("empty", "", PROSE),
    ("one-word", "Hello", PROSE),
    ("a-question-on-code", "Write me a function f(x) that returns x.", PROSE),
    ("english", ENGLISH * 4, PROSE),
    ("german", GERMAN * 4, PROSE),
    ("french", FRENCH * 4, PROSE),
    ("russian", RUSSIAN * 4, Category.CYRILLIC),
    ("arabic", ARABIC * 4, Category.ARABIC),
    ("hindi", HINDI * 4, Category.INDIC),
    ("greek", GREEK * 4, OTHER),
    ("emoji", "😀😃😄😁 " * 20, OTHER),
    ("chinese", CHINESE * 4, Category.CHINESE),
    ("japanese", JAPANESE * 4, Category.JAPANESE),
    ("korean", KOREAN * 4, Category.KOREAN),
    ("chinese-in-english", ENGLISH + CHINESE * 3, Category.CHINESE),
    ("python", inspect.getsource(textwrap), CODE),
    ("python-long", sample([inspect.getsource(argparse)]), CODE),
    ("c", C_SOURCE, CODE),
    ("question-with-code", MARKDOWN, CODE),
    ("json-compact", json.dumps(RECORDS, separators=(",", ":")), JSON),
    ("json-indented", json.dumps(RECORDS, indent=2), JSON),
    ("json-cut-in-the-middle", json.dumps(RECORDS)[555:], JSON),
    ("json-after-a-question", "What is the mean score here?\n" + json.dumps(RECORDS), JSON),
    ("json-strings", json.dumps(["alpha", "beta", "gamma"] * 20), JSON),
    ("base64", base64.b64encode(ENGLISH.encode() * 3).decode(), OTHER),
    ("numbers", "1.25, 3.50, 17, 99.125\n" * 50, Category.LOGS),
    ("access-log", ACCESS_LOG * 9, Category.LOGS),
    ("lone-surrogates", "\ud800" * 60, Category.KOREAN),
]


@pytest.mark.parametrize(("text", "category"), [row[1:] for row in SAMPLES], ids=[row[0] for row in SAMPLES])
def test_classify_tells_kinds_of_text_apart(text: str, category: Category) -> None:
    assert classify(text) is category


@given(st.text(st.characters(), max_size=200))
def test_no_text_makes_classify_raise(text: str) -> None:
    assert classify(text) in Category


@given(st.lists(st.integers(0, 5000).map("x".__mul__), max_size=9))
def test_a_sample_is_bounded_whatever_the_texts(texts: list[str]) -> None:
    assert len(sample(texts)) <= SAMPLE_CHARACTERS


def test_small_texts_are_sampled_whole() -> None:
    assert sorted(sample(["abc", "de"]).split("\n")) == ["abc", "de"]


def test_a_sample_has_the_beginning_and_the_middle_of_a_large_text() -> None:
    found = sample(["a" * 100_000 + "b" * 100_000])
    assert set(found) == {"a", "b", "\n"}
    assert abs(found.count("a") - found.count("b")) <= 1


def test_a_sample_takes_the_largest_texts() -> None:
    texts = [letter * (1000 * rank) for rank, letter in enumerate("abcdefg", start=1)]
    assert set(sample(texts)) == {*"defg", "\n"}
    assert len("defg") == SAMPLED_TEXTS
