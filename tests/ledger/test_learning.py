"""What the ledger learns from settlements: the arithmetic of core/estimate, for each tenant and for all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from extproc.core.estimate import (
    BETA,
    OWN_OBSERVATIONS,
    PRIOR_BYTES_PER_TOKEN,
    PRIOR_MESSAGE_TOKENS,
    PRIOR_OUTPUT_TOKENS,
    SHORT_TEXT_BYTES,
    Average,
    Beliefs,
    bytes_per_token,
    learn_output,
    learn_ratio,
    weight,
)
from extproc.core.facts import Category
from extproc.core.policy import ServiceClass, Vector
from extproc.ledger import Admitted, Observation, Settlement
from tests.ledger.conftest import Bench, Benches, entitlement, model

ROOM = Vector(10**7, 10**7, 1000)
PROSE, CODE = Category.PROSE, Category.CODE


@dataclass(frozen=True)
class Answered:
    """One ended request: whose, and what the server counted."""

    name: str
    seen: Observation
    completion: int = 0


@pytest.fixture
async def school(bench: Benches) -> Bench:
    tenants = (entitlement(name, ServiceClass.GUARANTEED, ROOM) for name in ("a", "b"))
    return bench(model(only=Vector(10**8, 10**8, 10_000)), *tenants)


async def teach(school: Bench, answered: Sequence[Answered]) -> None:
    """Settles them all, in order; some in one call of the ledger, some alone."""
    for begin in range(0, len(answered), 150):
        part = answered[begin : begin + 150]
        leases = [lease for lease, _ in await asyncio.gather(*(admitted(school, each.name) for each in part))]
        settlements = (
            Settlement(lease, "m", 1, each.seen.prompt_tokens, each.completion, each.seen)
            for lease, each in zip(leases, part, strict=True)
        )
        assert all(await asyncio.gather(*map(school.ledger.settle, settlements)))


async def admitted(school: Bench, name: str) -> tuple[str, Admitted]:
    lease, answer = await school.ask(name, tokens=1)
    assert isinstance(answer, Admitted)
    return lease, answer


async def learned(school: Bench, name: str, category: Category = PROSE) -> Beliefs:
    [beliefs] = await school.ledger.beliefs("m", [(name, category)])
    return beliefs


def text(text_bytes: int, prompt_tokens: int, category: Category = PROSE) -> Observation:
    return Observation(category, text_bytes, 0, prompt_tokens)


def close(found: Average, expected: Average) -> bool:
    return found.n == expected.n and (found.mean, found.deviation) == pytest.approx(
        (expected.mean, expected.deviation), rel=1e-9, abs=1e-9
    )


class Pupil:
    """The same lessons in plain Python, by the functions of core/estimate."""

    def __init__(self) -> None:
        self.ratios: dict[tuple[str, ...], Average] = {}
        self.outputs: dict[tuple[str, bool], Average] = {}
        self.overhead = Average(0, PRIOR_MESSAGE_TOKENS)
        self.own_overheads: dict[str, Average] = {}
        self.stream = Average(0, 0.0)

    def ratio(self, *key: str) -> Average:
        return self.ratios.get(key, Average(0, PRIOR_BYTES_PER_TOKEN))

    def own_overhead(self, name: str) -> Average:
        return self.own_overheads.get(name, Average(0, self.overhead.mean))

    def output(self, name: str, limited: bool) -> Average:
        return self.outputs.get((name, limited), Average(0, PRIOR_OUTPUT_TOKENS))

    def learn(self, answered: Answered) -> None:
        self._prompt(answered.name, answered.seen)
        if answered.completion:
            key = answered.name, answered.seen.limited
            self.outputs[key] = learn_output(self.output(*key), answered.completion, cut=answered.seen.cut)
            if answered.seen.stream_bytes:
                self.stream = plain(self.stream, answered.seen.stream_bytes / answered.completion)

    def _prompt(self, name: str, seen: Observation) -> None:
        category, messages = seen.category.value, seen.messages
        if messages and seen.text_bytes < SHORT_TEXT_BYTES * messages:
            known = self.ratio(category, name)
            known = known if known.n else self.ratio(category)
            observed = (seen.prompt_tokens - seen.text_bytes / known.mean) / messages
            own = self.own_overhead(name)
            self.overhead = plain(self.overhead, min(max(observed, 0), 64))
            self.own_overheads[name] = plain(own, min(max(observed, 0), 64))
        elif seen.text_bytes:
            observed = bytes_per_token(seen.text_bytes, seen.prompt_tokens - self.own_overhead(name).mean * messages)
            self.ratios[category,] = learn_ratio(self.ratio(category), observed, bounded=True)
            self.ratios[category, name] = learn_ratio(self.ratio(category, name), observed, bounded=False)


def plain(average: Average, observed: float) -> Average:
    n = average.n + 1
    return replace(average, n=n, mean=average.mean + weight(n) * (observed - average.mean))


def random_answers(seed: int, count: int) -> list[Answered]:
    draw, found = random.Random(seed), []
    for _ in range(count):
        text_bytes = draw.choice([0, draw.randint(1, 300), draw.randint(300, 100_000)])
        tokens = draw.choice([0, draw.randint(0, text_bytes + 50), int(text_bytes / draw.gauss(4, 0.5))])
        streamed = draw.choice([0, draw.randint(1, 100_000)])
        seen = Observation(
            draw.choice([PROSE, CODE]), text_bytes, draw.randint(0, 4), tokens, streamed,
            limited=draw.random() < 0.5, cut=draw.random() < 0.1,
        )  # fmt: skip
        found.append(Answered(draw.choice("ab"), seen, draw.choice([0, draw.randint(1, 5000)])))
    return found


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("count", [1, 12, 300, 2500])  # the steps of the output's quantile reach their floor at 400
async def test_the_ledger_learns_by_the_arithmetic_of_the_core(school: Bench, seed: int, count: int) -> None:
    answers, pupil = random_answers(1000 * count + seed, count), Pupil()
    await teach(school, answers)
    for answer in answers:
        pupil.learn(answer)
    for name in "ab":
        for category in (PROSE, CODE):
            found = await learned(school, name, category)
            assert close(found.of_model, pupil.ratio(category.value))
            assert close(found.of_entitlement, pupil.ratio(category.value, name))
        assert close(found.output, pupil.output(name, limited=True))
        assert close(found.open_output, pupil.output(name, limited=False))
        assert close(found.overhead_of_model, pupil.overhead)
        assert close(found.overhead_of_entitlement, pupil.own_overheads.get(name, Average(0, PRIOR_MESSAGE_TOKENS)))
        if pupil.stream.n:
            assert found.stream_bytes_per_token == pytest.approx(pupil.stream.mean, rel=1e-9)


async def test_what_nobody_has_taught_is_the_prior(school: Bench) -> None:
    assert await learned(school, "a") == Beliefs()


async def test_a_lease_teaches_once(school: Bench) -> None:
    lease, _ = await school.ask("a", tokens=1)
    settlement = Settlement(lease, "m", 1, 100, 10, text(500, 100))
    assert [await school.ledger.settle(settlement) for _ in range(3)] == [True, False, False]
    assert (await learned(school, "a")).of_model.n == 1


async def test_a_charge_by_rule_teaches_nothing(school: Bench) -> None:
    lease, _ = await school.ask("a", tokens=1)
    await school.ledger.settle(Settlement(lease, "m", 1, 100, 10))
    assert await learned(school, "a") == Beliefs()


async def test_categories_learn_apart(school: Bench) -> None:
    await teach(school, [Answered("a", text(3000, 1000, CODE))])
    assert (await learned(school, "a", CODE)).ratio.mean == pytest.approx(3.0)
    assert (await learned(school, "a", PROSE)).ratio == Average(0, PRIOR_BYTES_PER_TOKEN)


async def test_a_tenant_with_observations_of_its_own_is_not_moved_by_another(school: Bench) -> None:
    await teach(school, [Answered("a", text(4400, 1000))] * OWN_OBSERVATIONS)
    before = await learned(school, "a")
    await teach(school, [Answered("b", text(1_000_000, 1), completion=100_000)] * 300)
    after = await learned(school, "a")
    assert (after.ratio, after.output) == (before.ratio, before.output)
    assert after.of_model.mean > 3 * before.of_model.mean  # it did move the average of all


async def test_a_tenants_template_overhead_is_not_moved_by_another(school: Bench) -> None:
    await teach(school, [Answered("a", Observation(PROSE, 40, 2, 10 + 2 * 5))] * OWN_OBSERVATIONS)
    before = await learned(school, "a")
    await teach(school, [Answered("b", Observation(PROSE, 4, 1, 10_000))] * 100)
    assert (await learned(school, "a")).message_tokens == before.message_tokens == pytest.approx(5.0)


@pytest.mark.parametrize("hostile", [text(1_000_000, 1), text(1000, 1_000_000)], ids=["upwards", "downwards"])
async def test_ten_hostile_observations_move_a_newcomer_by_less_than_two_fifths(
    school: Bench, hostile: Observation
) -> None:
    await teach(school, [Answered("a", text(4400, 1000))] * 50)
    await teach(school, [Answered("b", hostile)] * 10)
    [newcomer] = await school.ledger.beliefs("m", [("newcomer", PROSE)])
    assert 4.4 * 0.6 < newcomer.ratio.mean < 4.4 * 1.4


async def test_short_messages_teach_the_templates_tokens(school: Bench) -> None:
    await teach(school, [Answered("a", Observation(PROSE, 40, 2, 10 + 2 * 7))] * 20)
    found = await learned(school, "a")
    assert found.message_tokens == pytest.approx(7.0)
    assert found.of_model.n == 0


def test_the_window_is_about_fifty_observations() -> None:
    assert weight(10**6) == pytest.approx(1 - BETA)


async def test_the_length_of_one_answer_is_learned_however_many_were_asked_for(school: Bench) -> None:
    for _ in range(40):
        lease, _ = await school.ask("a", tokens=1)
        seen = Observation(PROSE, 500, 0, 100, answers=8)
        await school.ledger.settle(Settlement(lease, "m", 1, 100, 800, seen))
    found = await learned(school, "a")
    assert 80 < found.output.mean < 200  # of a hundred each, not of eight hundred
    assert found.open_output.n == 0
