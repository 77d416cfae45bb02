from __future__ import annotations

from collections.abc import Callable

import pytest

from extproc.scenario.arena import Ask
from extproc.scenario.engine import Engine, replay
from extproc.scenario.orders import Arrival, Counters, Order, VirtualTokens
from extproc.sim.batching import Slots
from extproc.sim.timing import Timing, constant_decode, linear_prefill
from tests.scenario.traces import uneven

TIMING = Timing(linear_prefill(100.0), constant_decode(50.0))
ORDERS: list[Callable[[], Order]] = [Arrival, Counters, VirtualTokens]


def ask(number: int, client: str, prompt: int = 10, output: int = 5) -> Ask:
    return Ask(number, 0.0, client, prompt, output)


def serve(order: Order, count: int) -> list[int]:
    """Starts and finishes so many, one after another."""
    numbers = []
    for _ in range(count):
        one = order.next()
        assert one is not None
        order.started(one)
        for _token in range(one.output_tokens):
            order.generated(one)
        numbers.append(one.number)
    return numbers


def test_first_come_is_first_served() -> None:
    order = Arrival()
    for number, client in enumerate("aab"):
        order.arrived(ask(number, client))
    assert serve(order, 3) == [0, 1, 2]
    assert order.next() is None


def test_the_least_served_client_is_next() -> None:
    order = Counters()
    for number, client in enumerate("aaabb"):
        order.arrived(ask(number, client))
    assert serve(order, 5) == [0, 3, 1, 4, 2]


@pytest.mark.parametrize(
    ("kind", "first"),
    [pytest.param(Counters, [9, 10, 11], id="LCF owes"), pytest.param(VirtualTokens, [3, 9, 4], id="VTC does not")],
)
def test_whether_a_client_is_owed_for_the_time_it_was_away(kind: Callable[[], Order], first: list[int]) -> None:
    order = kind()
    for number in range(9):
        order.arrived(ask(number, "always"))
    serve(order, 3)
    for number in (9, 10, 11):
        order.arrived(ask(number, "late"))
    assert serve(order, 3) == first


def test_who_was_put_off_is_next_of_his_client_and_is_not_charged_twice() -> None:
    order = VirtualTokens()
    for number, client in enumerate("aab"):
        order.arrived(ask(number, client))
    first = order.next()
    assert first is not None
    order.started(first)
    order.put_off(first)
    assert serve(order, 3) == [0, 2, 1]


@pytest.mark.parametrize("kind", ORDERS)
def test_every_request_of_a_replay_is_served_in_full(kind: Callable[[], Order]) -> None:
    asks = uneven(30)
    run = replay(asks, Engine(Slots(64, 2000), TIMING), kind())
    assert run.refused == 0
    assert run.preempted > 0  # the KV cache is too small for all that begin: they are put off, and begin again
    assert all(
        one.first_token_at is not None
        and one.ended_at is not None
        and one.asked_at < one.first_token_at <= one.ended_at
        for one in run.served
    )


def test_a_server_is_busy_all_the_time_whatever_the_order() -> None:
    asks = uneven(60)
    rates = [replay(asks, Engine(Slots(64, 10_000), TIMING), kind()).tokens_per_second for kind in ORDERS]
    assert max(rates) < 1.05 * min(rates)
