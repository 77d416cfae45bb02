from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from extproc.traces.outputs import Outputs
from extproc.traces.published import AZURE, LIKE, LMSYS, arrivals, azure, from_quantiles, lmsys
from extproc.traces.quantiles import Point, Quantiles, read_quantiles
from extproc.traces.reading import read
from extproc.traces.trace import Trace, TraceError
from tests.traces.files import file
from tests.traces.published import published

DRAWN = [pytest.param(azure, AZURE, id="azure"), pytest.param(lmsys, LMSYS, id="lmsys")]
Draw = Callable[[int, float, int], Trace]
SEEDS = st.integers(0, 2**32)


def kolmogorov(requests: int) -> float:
    """What a sample's distribution strays from its own by, once in a million samples (Dvoretzky, Kiefer, Wolfowitz)."""
    return math.sqrt(math.log(2 / 1e-6) / (2 * requests))


@st.composite
def quantiles(draw: st.DrawFn) -> Quantiles:
    tokens = sorted(draw(st.sets(st.integers(2, 200_000), min_size=1, max_size=8)))
    shares = sorted(draw(st.lists(st.floats(0, 1), min_size=len(tokens) - 1, max_size=len(tokens) - 1)))
    return Quantiles("drawn", tuple(zip(tokens, [*shares, 1.0], strict=True)))


@pytest.mark.parametrize(("draw", "totals"), DRAWN)
@settings(max_examples=50, deadline=None)
@given(seed=SEEDS)
def test_totals_meet_the_published_points(draw: Draw, totals: Quantiles, seed: int) -> None:
    requests = 20_000
    total = draw(requests, 100.0, seed).total_tokens
    for tokens, share in totals.points:
        assert abs(float(np.mean(total <= tokens)) - share) < kolmogorov(requests)


@settings(deadline=None)
@given(totals=quantiles(), seed=SEEDS, mean=st.floats(1, 1000), variation=st.floats(0.1, 3))
def test_any_quantiles_are_met_and_every_request_has_a_prompt_and_an_answer(
    totals: Quantiles, seed: int, mean: float, variation: float
) -> None:
    requests = 2000
    try:
        trace = from_quantiles(totals, Outputs(mean, variation), requests, 10.0, seed)
    except TraceError:
        reject()  # answers of that length do not fit
    assert min(trace.prompt_tokens.min(), trace.output_tokens.min()) >= 1
    assert trace.total_tokens.max() <= totals.points[-1][0]
    for tokens, share in totals.points:
        assert abs(float(np.mean(trace.total_tokens <= tokens)) - share) < kolmogorov(requests)


@pytest.mark.parametrize("totals", [AZURE, LMSYS], ids=["azure", "lmsys"])
def test_the_length_at_a_points_share_is_the_points(totals: Quantiles) -> None:
    lengths = totals.tokens_at(np.array([share for _, share in totals.points]))
    assert {*zip(lengths.tolist(), (share for _, share in totals.points), strict=True)} <= {*totals.points}


@pytest.mark.parametrize("name", LIKE)
def test_answers_have_the_published_mean(name: str) -> None:
    totals, outputs = LIKE[name]
    output = from_quantiles(totals, outputs, 200_000, 100.0, 5).output_tokens
    five_deviations = 5 * output.std() / math.sqrt(len(output))
    assert output.mean() == pytest.approx(outputs.mean_tokens, abs=five_deviations + 0.5)  # 0.5: whole tokens


@pytest.mark.parametrize(("draw", "totals"), DRAWN)
def test_a_seed_gives_the_same_trace_and_another_another(draw: Draw, totals: Quantiles) -> None:
    one, again, other = draw(500, 10.0, 1), draw(500, 10.0, 1), draw(500, 10.0, 2)
    for column in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(one, column), getattr(again, column))
        assert not np.array_equal(getattr(one, column), getattr(other, column))
    assert totals.name in one.source


def test_lengths_are_the_same_at_every_rate_and_burstiness() -> None:
    calm, wild = azure(500, 10.0, 1), azure(500, 1000.0, 1, burstiness=4.0)
    assert np.array_equal(calm.prompt_tokens, wild.prompt_tokens)
    assert np.array_equal(calm.output_tokens, wild.output_tokens)


@pytest.mark.parametrize("variation", [0.0, 0.5, 1.0, 3.0])
def test_gaps_have_their_rate_and_variation(variation: float) -> None:
    times = arrivals(200_000, 50.0, variation, np.random.default_rng(3))
    gaps = np.diff(times)
    assert (times[0], gaps.min() >= 0) == (0.0, True)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.05, abs=1e-9)


def test_gaps_are_those_of_a_poisson_process_unless_told_otherwise() -> None:
    gaps = np.diff(lmsys(50_000, 10.0, 3).arrival_s)
    for length in (0.01, 0.1, 0.3):
        assert float(np.mean(gaps > length)) == pytest.approx(math.exp(-10 * length), abs=kolmogorov(len(gaps)))


@pytest.mark.parametrize("requests", [0, 1])
def test_a_trace_may_be_as_short_as_one_likes(requests: int) -> None:
    trace = azure(requests, 10.0, 1)
    assert (trace.requests, trace.duration_s) == (requests, 0.0)


def test_answers_that_cannot_fit_are_refused() -> None:
    with pytest.raises(TraceError, match="do not fit totals of 1606"):
        Outputs(2000).fitted(AZURE)


@pytest.mark.parametrize(
    "points",
    [
        pytest.param((), id="none"),
        pytest.param(((1, 1.0),), id="no room for prompt and answer"),
        pytest.param(((64, 0.5),), id="the last share is not 1"),
        pytest.param(((64, 0.5), (64, 1.0)), id="tokens twice"),
        pytest.param(((64, 0.5), (32, 1.0)), id="tokens descend"),
        pytest.param(((64, 0.5), (128, 0.4), (256, 1.0)), id="shares descend"),
        pytest.param(((64, math.nan), (128, 1.0)), id="a share is no number"),
        pytest.param(((64, -0.1), (128, 1.0)), id="a share is negative"),
    ],
)
def test_points_that_are_no_distribution_are_refused(points: tuple[Point, ...]) -> None:
    with pytest.raises(TraceError, match="mine: expected"):
        Quantiles("mine", points)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[[64, 0.25], [128, 1]]", id="JSON"),
        pytest.param("64,0.25\n128,1\n", id="lines"),
        pytest.param("tokens,share\r\n64,0.25\r\n128,1.0\r\n", id="lines under a header"),
    ],
)
def test_ones_own_quantiles_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "quantiles"
    path.write_text(text)
    assert read_quantiles(path).points == ((64, 0.25), (128, 1.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[[64], [128, 1]]", "expected pairs of tokens and share", id="JSON, no pair"),
        pytest.param("64,0.25\n128\n", "line 2", id="no pair"),
        pytest.param("64,0.25\n128,all\n", "line 2", id="no number"),
        pytest.param("", "expected points", id="empty"),
        pytest.param("64,0.25\n", "the last with the share 1", id="the end is missing"),
    ],
)
def test_what_are_no_quantiles_is_said_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    path = file(tmp_path / "quantiles", text)
    with pytest.raises(TraceError, match=said) as caught:
        read_quantiles(path)
    assert str(path) in str(caught.value)


PUBLISHED = [pytest.param("azure_cdf.json", AZURE, id="azure"), pytest.param("lmsys_cdf.json", LMSYS, id="lmsys")]


@pytest.mark.parametrize(("name", "totals"), PUBLISHED)
def test_the_constants_are_the_published_points(name: str, totals: Quantiles) -> None:
    known = dict(totals.points)
    for tokens, share in json.loads(published(name).read_text()):
        assert known.get(tokens, 1.0) == pytest.approx(share, abs=5e-7)


def test_the_drawn_lengths_are_like_azures_own() -> None:
    """Prompts and answers apart are a model; their quartiles stray from the trace's by a third at most."""
    paths = [published(f"AzureLLMInferenceTrace_{name}.csv") for name in ("code", "conv")]
    real, drawn = read(paths), azure(100_000, 10.0, 1)
    for quarter in (0.5, 0.75, 0.95):
        for mine, theirs in ((drawn.prompt_tokens, real.prompt_tokens), (drawn.output_tokens, real.output_tokens)):
            assert float(np.quantile(mine, quarter)) == pytest.approx(float(np.quantile(theirs, quarter)), rel=1 / 3)
