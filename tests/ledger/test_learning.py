"""What the ledger learns from settlements: the arithmetic of core/estimate, for each tenant and for all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from extproc.core.averages import BETA, Average, weight
from extproc.core.estimate import Beliefs
from extproc.core.facts import Category
from extproc.core.lessons import Lessons, Observation
from extproc.core.policy import ServiceClass, Vector
from extproc.core.ratios import PRIORS
from extproc.ledger import Admitted, Settlement
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


def random_answers(seed: int, count: int) -> list[Answered]:
    draw, found = random.Random(seed), []
    for _ in range(count):
        text_bytes = draw.choice([0, draw.randint(1, 300), draw.randint(300, 100_000)])
        tokens = draw.choice([0, draw.randint(0, text_bytes + 50), int(text_bytes / draw.gauss(4, 0.5))])
        streamed = draw.choice([0, draw.randint(1, 100_000)])
        seen = Observation(
            draw.choice([PROSE, CODE]), text_bytes, draw.randint(0, 4), tokens, streamed,
            limited=draw.random() < 0.5, cut=draw.random() < 0.1,
            bytes_per_token=draw.uniform(1, 8), message_tokens=draw.uniform(0, 9),
        )  # fmt: skip
        found.append(Answered(draw.choice("ab"), seen, draw.choice([0, draw.randint(1, 5000)])))
    return found


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("count", [1, 12, 300, 2500])  # the steps of the output's quantile reach their floor at 3,600
async def test_the_ledger_learns_by_the_arithmetic_of_the_core(school: Bench, seed: int, count: int) -> None:
    answers, lessons = random_answers(1000 * count + seed, count), Lessons()
    await teach(school, answers)
    for answer in answers:
        lessons.learn(answer.name, answer.seen, answer.completion)
    for name in (*"ab", "newcomer"):
        for category in (PROSE, CODE, Category.KOREAN):
            found, expected = await learned(school, name, category), lessons.beliefs(name, category)
            assert close(found.of_model, expected.of_model)
            assert close(found.of_entitlement, expected.of_entitlement)
            assert close(found.output, expected.output)
            assert close(found.open_output, expected.open_output)
            assert close(found.overhead_of_model, expected.overhead_of_model)
            assert close(found.overhead_of_entitlement, expected.overhead_of_entitlement)
            assert found.stream_bytes_per_token == pytest.approx(expected.stream_bytes_per_token, rel=1e-9)


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
    assert (await learned(school, "a", CODE)).of_entitlement.mean == pytest.approx(3.0)
    assert (await learned(school, "a", PROSE)).of_entitlement.n == 0


async def test_a_tenant_with_observations_of_its_own_is_not_moved_by_another(school: Bench) -> None:
    await teach(school, [Answered("a", text(4400, 1000))] * 50)
    before = await learned(school, "a")
    await teach(school, [Answered("b", text(1_000_000, 1), completion=100_000)] * 300)
    after = await learned(school, "a")
    assert (after.of_entitlement, after.output) == (before.of_entitlement, before.output)
    assert after.ratio.mean == pytest.approx(before.ratio.mean, rel=0.005)


async def test_a_tenants_template_overhead_is_not_moved_by_another(school: Bench) -> None:
    await teach(school, [Answered("a", Observation(PROSE, 40, 2, 10 + 2 * 5, bytes_per_token=4.0))] * 50)
    before = await learned(school, "a")
    await teach(school, [Answered("b", Observation(PROSE, 4, 1, 10_000))] * 100)
    after = await learned(school, "a")
    assert after.message_tokens == pytest.approx(before.message_tokens, rel=0.02) == pytest.approx(5.0, rel=0.02)


@pytest.mark.parametrize("hostile", [text(1_000_000, 1), text(1000, 1_000_000)], ids=["upwards", "downwards"])
async def test_a_thousand_hostile_observations_move_a_newcomer_no_further_than_the_honest_tenant_and_the_prior(
    school: Bench, hostile: Observation
) -> None:
    await teach(school, [Answered("a", text(4400, 1000))] * 50)
    await teach(school, [Answered("b", hostile)] * 1000)
    [newcomer] = await school.ledger.beliefs("m", [("newcomer", PROSE)])
    assert PRIORS[PROSE] <= newcomer.ratio.mean <= 4.4


async def test_short_messages_teach_the_templates_tokens(school: Bench) -> None:
    await teach(school, [Answered("a", Observation(PROSE, 40, 2, 10 + 2 * 7))] * 20)
    found = await learned(school, "a")
    assert found.overhead_of_entitlement.mean == pytest.approx(7.0)
    assert found.of_entitlement.n == 0


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
