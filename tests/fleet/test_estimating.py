from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.facts import Category
from extproc.fleet.fleet import Fleet
from extproc.fleet.routing import ByEstimate, ByLength
from extproc.fleet.simulation import Outcome, run
from extproc.fleet.texts import KINDS, Kind, synthesise
from extproc.traces.trace import Trace
from tests.fleet.fleets import mixed, split, trace_of

EXACT = (Kind(Category.PROSE, 1.0, 4.48, 0.0),)


def estimated(trace: Trace, fleet: Fleet, kinds: tuple[Kind, ...] = KINDS, **how: float) -> tuple[Outcome, ByEstimate]:
    router = ByEstimate(trace, fleet, synthesise(trace, kinds, seed=1), **how)  # type: ignore[arg-type]
    return run(trace, fleet, router), router


def test_bytes_have_the_ratio_of_their_kind() -> None:
    trace = mixed(20_000)
    texts = synthesise(trace, KINDS, seed=1)
    for kind in KINDS:
        which = np.array([category is kind.category for category in texts.categories])
        assert which.mean() == pytest.approx(kind.share, abs=0.01)
        ratios = np.array(texts.bytes_list)[which] / trace.prompt_tokens[which]
        assert ratios.mean() == pytest.approx(kind.bytes_per_token, rel=0.01)
        assert np.log(ratios).std() == pytest.approx(kind.spread, rel=0.05)


def test_a_seed_gives_the_same_bytes() -> None:
    texts = [synthesise(mixed(), KINDS, seed).bytes_list for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("shares", [(), (0.0,), (1.0, -0.5)], ids=["no kinds", "nothing", "negative"])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="share"):
        synthesise(mixed(10), tuple(replace(KINDS[0], share=share) for share in shares), seed=1)


def test_the_estimate_is_learned_from_what_has_ended() -> None:
    _, router = estimated(mixed(3000), split(), EXACT)
    assert abs(router.errors[0]) > 0.1  # 4.0 bytes a token, before anything is known
    assert np.abs(router.errors[500:]).max() < 0.01 + 1 / 10  # whole tokens of prompts of ten and more


def test_while_nothing_has_ended_nothing_is_learned() -> None:
    at_once = trace_of(*[(0.0, 100, 10)] * 50)
    _, router = estimated(at_once, split(), EXACT)
    assert len(set(router.errors)) == 1


def test_an_exact_ratio_routes_as_the_true_length_does() -> None:
    trace = mixed(3000)
    outcome, _ = estimated(trace, split(), EXACT)
    true = run(trace, split(), ByLength(trace, split()))
    assert (outcome.pool[500:] == true.pool[500:]).mean() > 0.999
    assert not outcome.misrouted[500:].any()


def test_caution_buys_fewer_misroutes_with_a_fuller_long_pool() -> None:
    trace = replace(mixed(4000), prompt_tokens=np.random.default_rng(3).integers(500, 1300, 4000))
    bold, careful = (estimated(trace, split(long=4), sigmas=sigmas)[0] for sigmas in (0.0, 2.0))
    assert careful.misrouted.mean() < bold.misrouted.mean() / 3
    assert (careful.pool == 1).mean() > (bold.pool == 1).mean()


def test_where_none_sets_a_limit_the_usual_answer_is_reckoned_with() -> None:
    trace = trace_of(*[(float(n), 100, 400) for n in range(100)])
    outcome, _ = estimated(trace, split(), EXACT, limited=False)
    assert outcome.pool.tolist()[:20] == [1] * 20  # 1,024 tokens until twenty answers are known
    assert outcome.pool.tolist()[-20:] == [0] * 20
