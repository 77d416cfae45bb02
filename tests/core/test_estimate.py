from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.averages import Average
from extproc.core.estimate import (
    LOWEST_RATIO,
    OUTPUT_OBSERVATIONS,
    PRIOR_OUTPUT_TOKENS,
    Beliefs,
    estimate,
    known_tokens,
)
from extproc.core.facts import Api, RequestFacts
from extproc.core.policy import MediaTokens, Reserve, Routing
from tests.core.values import SURE, facts, model

M = model()
PER_MODEL = model(reserve=Reserve.MAX_TOKENS)

averages = st.builds(
    Average, st.integers(0, 500), st.floats(0.1, 20, allow_nan=False), st.floats(0, 20, allow_nan=False)
)
beliefs = st.builds(
    Beliefs,
    of_model=averages,
    of_entitlement=averages,
    overhead_of_entitlement=st.builds(Average, st.integers(0, 500), st.floats(0, 64)),
    overhead_of_model=st.floats(0, 64).map(lambda mean: Average(1, mean)),
    output=st.builds(Average, st.integers(0, 500), st.floats(1, 1e6)),
)
requests = st.builds(
    facts,
    api=st.sampled_from(Api),
    text_bytes=st.integers(0, 10**8),
    exact_tokens=st.integers(0, 10**6),
    messages=st.integers(0, 1000),
    images=st.integers(0, 100),
    max_output=st.none() | st.integers(0, 10**9),
    choices=st.integers(1, 128),
    prompts=st.integers(1, 100),
)


@pytest.mark.parametrize(
    ("request_", "prompt"),
    [
        pytest.param(facts(), 100, id="bytes over the ratio"),
        pytest.param(facts(text_bytes=401), 101, id="rounded up"),
        pytest.param(facts(text_bytes=0), 0, id="nothing to read"),
        pytest.param(facts(messages=3), 112, id="each message adds the template's tokens"),
        pytest.param(facts(text_bytes=0, exact_tokens=77), 77, id="token ids count as they are"),
        pytest.param(facts(images=2), 100 + 2048, id="images by the model's figure"),
        pytest.param(facts(audios=1), 100 + 1024, id="audio by the model's figure"),
    ],
)
def test_the_likely_prompt_is_what_the_model_will_read(request_: RequestFacts, prompt: int) -> None:
    assert estimate(request_, M, SURE).likely_prompt == prompt


def test_media_count_by_the_figures_of_their_model() -> None:
    assert known_tokens(facts(exact_tokens=5, images=2, audios=3), model(media=MediaTokens(10, 100))) == 325


@pytest.mark.parametrize(
    ("sigmas", "deviation", "budget_prompt"),
    [
        pytest.param(2.0, 0.0, 100, id="no deviation"),
        pytest.param(0.0, 1.0, 100, id="no sigmas"),
        pytest.param(1.0, 0.8, 125, id="one deviation off the ratio"),
        pytest.param(2.0, 1.0, 200, id="two deviations off the ratio"),
        pytest.param(9.0, 3.0, 400, id="never below a quarter of the ratio"),
    ],
)
def test_the_budget_lowers_the_ratio_by_so_many_deviations(sigmas: float, deviation: float, budget_prompt: int) -> None:
    known = replace(SURE, of_model=Average(100, 4.0, deviation))
    assert estimate(facts(), model(routing=Routing(sigmas=sigmas)), known).budget_prompt == budget_prompt


def test_before_any_observation_the_deviation_is_a_quarter_of_the_prior() -> None:
    cold = estimate(facts(), M, Beliefs())
    assert (cold.likely_prompt, cold.budget_prompt, cold.bytes_per_token) == (100, 200, 4.0)


@pytest.mark.parametrize(
    ("observations", "prompt"),
    [
        pytest.param(0, 100, id="none of its own: what others taught"),
        pytest.param(2, 150, id="two of its own count as much"),
        pytest.param(98, 198, id="many of its own count almost alone"),
    ],
)
def test_a_young_tenants_estimates_lean_on_what_others_taught(observations: int, prompt: int) -> None:
    known = replace(SURE, of_entitlement=Average(observations, 2.0))
    assert estimate(facts(), M, known).likely_prompt == prompt


def test_so_does_what_its_template_adds() -> None:
    known = replace(SURE, overhead_of_entitlement=Average(2, 10.0))
    assert estimate(facts(text_bytes=0, messages=10), M, known).likely_prompt == 70


def test_no_learned_ratio_makes_more_than_two_tokens_of_a_byte() -> None:
    known = replace(SURE, of_model=Average(100, 0.01))
    assert estimate(facts(), M, known).budget_prompt == 400 / LOWEST_RATIO


@pytest.mark.parametrize(
    ("request_", "seen", "output"),
    [
        pytest.param(facts(), 100, 100, id="what the client allows"),
        pytest.param(facts(max_output=0), 100, 0, id="none: an echo"),
        pytest.param(facts(max_output=None), OUTPUT_OBSERVATIONS, 70, id="no maximum: what was learned of such"),
        pytest.param(facts(max_output=None), OUTPUT_OBSERVATIONS - 1, PRIOR_OUTPUT_TOKENS, id="nor enough learned"),
        pytest.param(facts(api=Api.EMBEDDINGS, max_output=None), 100, 0, id="embeddings generate nothing"),
        pytest.param(facts(choices=3), 100, 300, id="every choice"),
        pytest.param(facts(prompts=4), 100, 400, id="every prompt"),
        pytest.param(facts(choices=3, prompts=4), 100, 1200, id="every choice of every prompt"),
    ],
)
def test_output_is_the_most_that_may_be_generated(request_: RequestFacts, seen: int, output: int) -> None:
    assert estimate(request_, M, replace(SURE, open_output=Average(seen, 70.0))).output == output


def test_output_without_a_maximum_is_bounded_by_the_models_length() -> None:
    known = replace(SURE, open_output=Average(100, 1e6))
    assert estimate(facts(max_output=None), model(1000), known).output == 1000


def test_output_that_nobody_asked_for_makes_no_request_too_long() -> None:
    known = replace(SURE, output=Average(100, 1e6))
    assert estimate(facts(max_output=None), model(1000), known).longest_likely == 100
    assert estimate(facts(max_output=950), model(1000), known).longest_likely == 1050


@pytest.mark.parametrize(
    ("max_output", "seen", "expected", "max_tokens"),
    [
        pytest.param(4096, 100, 50, 4096, id="a careless maximum"),
        pytest.param(30, 100, 30, 30, id="a maximum below what is usual"),
        pytest.param(4096, OUTPUT_OBSERVATIONS - 1, 4096, 4096, id="nothing learned yet"),
        pytest.param(None, 0, 70, 70, id="no maximum: what was learned of such"),
    ],
)
def test_a_lease_holds_what_is_expected_or_all_that_is_allowed(
    max_output: int | None, seen: int, expected: int, max_tokens: int
) -> None:
    known, request_ = replace(SURE, output=Average(seen, 50.0)), facts(max_output=max_output)
    assert estimate(request_, M, known).reserved_output == expected
    assert estimate(request_, PER_MODEL, known).reserved_output == max_tokens


def test_the_longest_sequence_is_one_prompt_and_one_answer() -> None:
    uneven = facts(text_bytes=4000, prompts=10, choices=5, longest_text_bytes=2000, longest_exact_tokens=7)
    found = estimate(uneven, M, SURE)
    assert found.longest_likely == found.sequence_budget == 500 + 7 + 100
    assert found.budget == 1000 + 100 * 50


@given(requests, beliefs)
def test_the_budget_is_never_below_the_likely_value_nor_the_lease_above_the_budget(
    request_: RequestFacts, known: Beliefs
) -> None:
    found = estimate(request_, M, known)
    assert found.budget_prompt >= found.likely_prompt >= 0
    assert 0 <= found.reserved_output <= found.output
    assert found.reserved <= found.budget


@given(requests, beliefs, st.integers(0, 10**6))
def test_more_bytes_never_cost_less(request_: RequestFacts, known: Beliefs, more: int) -> None:
    longer = replace(request_, text_bytes=request_.text_bytes + more)
    assert estimate(longer, M, known).budget >= estimate(request_, M, known).budget
    assert estimate(longer, M, known).sequence_budget >= estimate(request_, M, known).sequence_budget
    assert estimate(longer, M, known).longest_likely >= estimate(request_, M, known).longest_likely


@given(requests, beliefs, st.floats(0, 10), st.floats(0, 10))
def test_more_sigmas_never_make_the_budget_smaller(
    request_: RequestFacts, known: Beliefs, sigmas: float, more: float
) -> None:
    few, many = (model(routing=Routing(sigmas=value)) for value in (sigmas, sigmas + more))
    assert estimate(request_, many, known).budget >= estimate(request_, few, known).budget


@given(requests, beliefs)
def test_a_request_without_a_maximum_has_a_bounded_output(request_: RequestFacts, known: Beliefs) -> None:
    answers = request_.choices * request_.prompts
    assert estimate(replace(request_, max_output=None), M, known).output <= M.max_model_len * answers
