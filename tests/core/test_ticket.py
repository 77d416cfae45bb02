from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Api, Category
from extproc.core.ticket import Ticket, decode
from tests.core.values import TICKET

names = st.text(st.characters(exclude_characters="|", codec="utf-8"))  # config allows far fewer
numbers = st.integers(-(2**63), 2**63)
tickets = st.builds(
    Ticket,
    lease=names,
    model=names,
    entitlement=names,
    pool=names,
    api=st.sampled_from(Api),
    category=st.sampled_from(Category),
    stream=st.booleans(),
    text_bytes=numbers,
    messages=numbers,
    known_tokens=numbers,
    prompt_estimate=numbers,
    reserved_tokens=numbers,
    retriable=st.booleans(),
    traceparent=names,
)
FIELDS = TICKET.encode().split("|")


@given(tickets)
def test_a_ticket_comes_back_as_it_went(ticket: Ticket) -> None:
    assert decode(ticket.encode()) == ticket


@given(st.text() | st.lists(names, min_size=len(FIELDS), max_size=len(FIELDS)).map("|".join))
def test_garbage_is_no_ticket_and_never_raises(text: str) -> None:
    assert decode(text) is None


@given(st.integers(0, len(FIELDS) - 1), st.text())
def test_a_ticket_with_one_field_replaced_never_raises(index: int, text: str) -> None:
    decode("|".join([*FIELDS[:index], text, *FIELDS[index + 1 :]]))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("2", id="a version alone"),
        pytest.param("|".join(["1", *FIELDS[1:]]), id="another version"),
        pytest.param("|".join(FIELDS[:-1]), id="a field too few"),
        pytest.param("|".join([*FIELDS, ""]), id="a field too many"),
        pytest.param(TICKET.encode().replace("/v1/chat/completions", "/v1/chat"), id="an unknown API"),
        pytest.param(TICKET.encode().replace("prose", "poetry"), id="an unknown category"),
        pytest.param(TICKET.encode().replace("400", "4e2"), id="a number that is none"),
        pytest.param(TICKET.encode().replace("400", "9" * 5000), id="a number without end"),
    ],
)
def test_what_is_no_ticket_of_this_version_is_left_alone(text: str) -> None:
    assert decode(text) is None
