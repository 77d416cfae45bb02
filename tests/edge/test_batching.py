from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from extproc.batching import MOST_IN_A_CALL, Batching


class Outage(Exception):  # noqa: N818 - it names the state of affairs
    pass


@dataclass
class Server:
    """A far side that answers when the test says so: each call waits for its turn in `gates`."""

    calls: list[list[int]] = field(default_factory=list)
    gates: list[asyncio.Event] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    outages: set[int] = field(default_factory=set)  # of calls, counted from 0
    abandoned: list[tuple[int, int]] = field(default_factory=list)

    async def call(self, items: Sequence[int]) -> list[int]:
        number = len(self.calls)
        self.calls.append(list(items))
        self.gates.append(asyncio.Event())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await self.gates[number].wait()
        self.in_flight -= 1
        if number in self.outages:
            raise Outage(number)
        return [10 * item for item in items]

    def batching(self) -> Batching[int, int]:
        return Batching(self.call, lambda item, answer: self.abandoned.append((item, answer)))

    async def answer_all(self) -> None:
        """Opens every gate, and those that come, until nothing waits."""
        while self.in_flight:
            for gate in self.gates:
                gate.set()
            await turns()


async def turns() -> None:
    """Lets every task run until it waits for something that is not of this process's own making."""
    for _ in range(10):
        await asyncio.sleep(0)


def submit(batching: Batching[int, int], *items: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batching.submit(item)) for item in items]


async def test_one_call_is_in_flight_and_the_next_carries_all_who_came_meanwhile() -> None:
    server = Server()
    batching = server.batching()
    first = submit(batching, 1)
    await turns()
    rest = submit(batching, 2, 3, 4)
    await turns()
    assert server.calls == [[1]]
    await server.answer_all()
    assert await asyncio.gather(*first, *rest) == [10, 20, 30, 40]
    assert (server.calls, server.most_in_flight) == ([[1], [2, 3, 4]], 1)


async def test_those_who_come_together_share_the_first_call() -> None:
    server = Server()
    tasks = submit(server.batching(), 1, 2, 3)
    await turns()
    assert server.calls == [[1, 2, 3]]
    await server.answer_all()
    await asyncio.gather(*tasks)


async def test_a_call_is_bounded_and_the_order_kept() -> None:
    server = Server()
    items = list(range(2 * MOST_IN_A_CALL + 1))
    tasks = submit(server.batching(), *items)
    await turns()
    await server.answer_all()
    assert await asyncio.gather(*tasks) == [10 * item for item in items]
    assert [len(call) for call in server.calls] == [MOST_IN_A_CALL, MOST_IN_A_CALL, 1]
    assert [item for call in server.calls for item in call] == items


async def test_a_fault_reaches_each_of_its_call_and_those_who_waited_behind_it() -> None:
    server = Server(outages={0})
    batching = server.batching()
    failing = submit(batching, 1, 2)
    await turns()
    behind = submit(batching, 3)
    await turns()
    await server.answer_all()
    answers = await asyncio.gather(*failing, *behind, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Outage] * 3
    [later] = submit(batching, 4)
    await turns()
    await server.answer_all()
    assert await later == 40


async def test_it_works_again_after_it_was_idle() -> None:
    server = Server()
    batching = server.batching()
    for item in (1, 2):
        tasks = submit(batching, item)
        await turns()
        await server.answer_all()
        assert await tasks[0] == 10 * item


async def test_who_is_cancelled_while_waiting_is_left_out() -> None:
    server = Server()
    batching = server.batching()
    tasks = submit(batching, 1)
    await turns()
    tasks += submit(batching, 2, 3)
    await turns()
    tasks[1].cancel()
    await turns()
    await server.answer_all()
    assert [await tasks[0], await tasks[2]] == [10, 30]
    assert (server.calls, server.abandoned) == ([[1], [3]], [])


async def test_nothing_is_called_when_all_who_waited_have_gone() -> None:
    server = Server()
    batching = server.batching()
    tasks = submit(batching, 1)
    await turns()
    tasks += submit(batching, 2, 3)
    await turns()
    for task in tasks[1:]:
        task.cancel()
    await server.answer_all()
    assert await tasks[0] == 10
    assert server.calls == [[1]]


async def test_an_answer_whose_submitter_was_cancelled_in_flight_is_reported() -> None:
    server = Server()
    tasks = submit(server.batching(), 1, 2)
    await turns()
    tasks[0].cancel()
    await turns()
    await server.answer_all()
    assert await tasks[1] == 20
    assert server.abandoned == [(1, 10)]


async def test_an_answer_is_reported_even_where_its_submitter_is_cancelled_the_moment_it_comes() -> None:
    server = Server()
    tasks: list[asyncio.Task[int]] = []

    async def call(items: Sequence[int]) -> list[int]:
        asyncio.get_running_loop().call_soon(tasks[0].cancel)  # runs after the answer is set and before it is taken
        return [10 * item for item in items]

    tasks += submit(Batching(call, lambda item, answer: server.abandoned.append((item, answer))), 1)
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert server.abandoned == [(1, 10)]


async def test_a_fault_whose_submitter_was_cancelled_is_nobodys() -> None:
    server = Server(outages={0})
    tasks = submit(server.batching(), 1, 2)
    await turns()
    tasks[0].cancel()
    await server.answer_all()
    with pytest.raises(Outage):
        await tasks[1]
    assert server.abandoned == []


async def test_a_fault_is_no_answer_to_report_where_its_submitter_is_cancelled_the_moment_it_comes() -> None:
    abandoned: list[int] = []
    tasks: list[asyncio.Task[int]] = []

    async def call(items: Sequence[int]) -> list[int]:
        asyncio.get_running_loop().call_soon(tasks[0].cancel)
        raise Outage(items)

    tasks += submit(Batching(call, lambda item, _: abandoned.append(item)), 1)
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert abandoned == []


async def test_closing_ends_the_call_and_all_who_wait_for_it() -> None:
    server = Server()
    batching = server.batching()
    first = asyncio.create_task(batching.submit(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(batching.submit(2))
    await asyncio.sleep(0)
    await batching.close()
    answers = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2
