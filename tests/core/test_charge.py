"""What an ended request is charged: the server's count, or by rule what was certainly used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.charge import Charge, Ending, Source, charge, cut_short, misrouted, weighted
from extproc.core.policy import Cost
from extproc.core.ticket import Ticket
from tests.core.values import TICKET

PLAIN, STREAM = TICKET, replace(TICKET, stream=True)
PER_TOKEN = 200.0
USAGE, ESTIMATED, NOTHING = Source.USAGE, Source.ESTIMATED, Source.NOTHING
counts = st.none() | st.integers(0, 10**9)


@pytest.mark.parametrize(
    ("ticket", "ending", "expected"),
    [
        pytest.param(PLAIN, Ending(200, 90, 30, first_byte=True), (90, 30, USAGE), id="usage"),
        pytest.param(STREAM, Ending(200, 90, 30, first_byte=True), (90, 30, USAGE), id="usage at a stream's end"),
        pytest.param(PLAIN, Ending(200, 90, first_byte=True), (90, 0, USAGE), id="an embedding has no completion"),
        pytest.param(PLAIN, Ending(200, 0, 0, first_byte=True), (0, 0, USAGE), id="a count of nothing is a count"),
        pytest.param(PLAIN, Ending(0, 90, 30), (90, 30, USAGE), id="usage, and then the client went away"),
        pytest.param(PLAIN, Ending(500, 90, 30), (90, 30, USAGE), id="usage beside an error"),
        pytest.param(PLAIN, Ending(0), (0, 0, NOTHING), id="client gone before the first byte"),
        pytest.param(STREAM, Ending(200, ttft_seconds=0.1), (0, 0, NOTHING), id="headers of a stream, and no byte"),
        pytest.param(
            STREAM, Ending(0, first_byte=True, response_bytes=1001), (100, 6, ESTIMATED), id="client gone mid-stream"
        ),
        pytest.param(
            STREAM, Ending(200, first_byte=True, response_bytes=1000), (100, 5, ESTIMATED), id="stream without usage"
        ),
        pytest.param(
            STREAM, Ending(0, 90, first_byte=True, response_bytes=1000), (90, 5, ESTIMATED), id="gone, prompt counted"
        ),
        pytest.param(
            STREAM, Ending(200, 90, first_byte=True, response_bytes=1000), (90, 5, ESTIMATED), id="cut, prompt counted"
        ),
        pytest.param(
            PLAIN, Ending(200, first_byte=True, response_bytes=1000), (100, 250, ESTIMATED), id="JSON without usage"
        ),
        *(
            pytest.param(
                PLAIN, Ending(status, first_byte=True, response_bytes=99), (0, 0, NOTHING), id=f"error {status}"
            )
            for status in (400, 404, 429, 500, 503, 504)
        ),
        pytest.param(PLAIN, Ending(400, 90, first_byte=True), (0, 0, NOTHING), id="an error that counts a prompt"),
    ],
)
def test_what_is_charged(ticket: Ticket, ending: Ending, expected: tuple[int, int, Source]) -> None:
    prompt, completion, source = expected
    found = charge(ticket, ending, Cost(), PER_TOKEN)
    assert found == Charge(prompt, completion, prompt + completion, source)


@pytest.mark.parametrize(
    ("cached", "cost", "tokens"),
    [
        pytest.param(0, Cost(), 150, id="a token is a token"),
        pytest.param(40, Cost(), 150, id="cached tokens cost the same unless told otherwise"),
        pytest.param(40, Cost(cached_prompt=0.5), 130, id="cached tokens at half"),
        pytest.param(40, Cost(cached_prompt=0.0), 110, id="cached tokens for free"),
        pytest.param(0, Cost(prompt=0.5, completion=3.0), 200, id="prompt and completion"),
        pytest.param(0, Cost(prompt=0.333), 84, id="rounded up"),
        pytest.param(500, Cost(cached_prompt=0.0), 50, id="more cached than there is: all of the prompt"),
        pytest.param(0, Cost(0.0, 0.0, 0.0), 0, id="free of charge"),
    ],
)
def test_tokens_are_weighted_by_the_models_cost(cached: int, cost: Cost, tokens: int) -> None:
    assert charge(PLAIN, Ending(200, 100, 50, cached), cost, PER_TOKEN).tokens == tokens


def test_an_estimated_charge_knows_nothing_of_cached_tokens() -> None:
    ending = Ending(0, None, None, 40, first_byte=True, response_bytes=0)
    assert charge(PLAIN, ending, Cost(cached_prompt=0.0), PER_TOKEN).tokens == 100


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1), st.floats(0, 10))
def test_cheaper_cached_tokens_never_raise_the_charge(
    prompt: int, completion: int, cached: int, share: float, price: float
) -> None:
    with_cache = weighted(prompt, completion, cached, Cost(price, price * share, 1.0))
    assert 0 <= with_cache <= weighted(prompt, completion, 0, Cost(price, price * share, 1.0))


@given(
    st.builds(Ending, st.integers(0, 599), counts, counts, counts, st.booleans(), st.integers(0, 10**9)),
    st.sampled_from([PLAIN, STREAM]),
)
def test_every_ending_has_a_charge_of_no_less_than_nothing(ending: Ending, ticket: Ticket) -> None:
    found = charge(ticket, ending, Cost(), PER_TOKEN)
    assert min(found.prompt_tokens, found.completion_tokens, found.tokens) >= 0
    assert (found.source is NOTHING) <= (found.tokens == 0)


@pytest.mark.parametrize(
    ("retriable", "attempts", "status", "expected"),
    [
        pytest.param(True, 2, 200, True, id="the next pool took it"),
        pytest.param(True, 2, 400, False, id="the next pool refused it, too"),
        pytest.param(True, 2, 0, False, id="nobody waited for the next pool"),
        pytest.param(True, 1, 200, False, id="the first pool took it"),
        pytest.param(False, 2, 200, False, id="a retry for another reason"),
    ],
)
def test_a_misroute_is_an_answer_from_the_next_pool(
    retriable: bool,
    attempts: int,
    status: int,
    expected: bool,
) -> None:
    assert misrouted(replace(TICKET, retriable=retriable), Ending(status, attempts=attempts)) is expected


@pytest.mark.parametrize(
    ("changes", "prompt", "completion", "expected"),
    [
        pytest.param({}, 8100, 92, True, id="at the server's length, below what was asked"),
        pytest.param({}, 8100, 91, False, id="it ended by itself"),
        pytest.param({"asked_tokens": 92}, 8100, 92, False, id="all that was asked"),
        pytest.param({"asked_tokens": -1}, 8100, 92, True, id="nobody set a limit"),
        pytest.param({"answers": 3}, 8100, 276, True, id="all of three answers"),
        pytest.param({"answers": 3}, 8100, 240, False, id="some of three answers cannot be told"),
        pytest.param({"prompts": 2, "answers": 2}, 8100, 184, False, id="several prompts cannot be told"),
        pytest.param({"asked_tokens": 0}, 8192, 0, False, id="an embedding of the whole length"),
    ],
)
def test_an_answer_that_fills_the_server_before_its_own_limit_was_cut_short(
    changes: dict[str, Any], prompt: int, completion: int, expected: bool
) -> None:
    due = Charge(prompt, completion, prompt + completion, USAGE)
    assert cut_short(replace(TICKET, **changes), due, 8192) is expected


def test_without_usage_nobody_knows_whether_it_was_cut_short() -> None:
    assert not cut_short(TICKET, Charge(8100, 92, 8192, ESTIMATED), 8192)
