"""How fairly a trace's clients are served: by the server alone in three orders, and behind Tokenpool."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from extproc.local import valkey
from extproc.local.processes import Children
from extproc.local.stack import run_directory, stop_signals
from extproc.scenario.arena import CLIENTS, PUBLISHED, REQUESTS, SERVER, TIMING, Ask, Row
from extproc.scenario.behind_ledger import Offer, Progress, replay
from extproc.scenario.engine import Engine, Run
from extproc.scenario.engine import replay as replay_alone
from extproc.scenario.orders import Arrival, Counters, Order, VirtualTokens
from extproc.scenario.vtc import Difference, difference

TOKENPOOL = "Tokenpool"
MOVED_MS = 50.0
SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Comparison:
    asks: tuple[Ask, ...]
    runs: Mapping[str, Run]  # by order

    @property
    def seconds(self) -> float:
        return self.asks[-1].at_ms / 1000

    @property
    def clients(self) -> int:
        return len({ask.client for ask in self.asks})

    def difference(self, order: str) -> Difference:
        return difference(self.runs[order].served, round(self.seconds))

    def rows(self) -> Iterator[Row]:
        if (len(self.asks), self.clients) == (REQUESTS, CLIENTS):
            yield from PUBLISHED
        for order, run in self.runs.items():
            found = self.difference(order)
            yield Row(
                order=order,
                server=SIMULATED,
                largest=found.largest,
                mean=found.mean,
                variance=found.variance,
                tokens_per_second=run.tokens_per_second,
                refused=run.refused,
                ttft_p50_seconds=run.ttft_seconds(0.5),
                ttft_p99_seconds=run.ttft_seconds(0.99),
            )


def moved(asks: Sequence[Ask], seed: int) -> tuple[Ask, ...]:
    """The same trace, each request a little earlier or later; seed 0 leaves it as it is.

    So long a schedule is chaotic: one run says little of the largest difference.
    """
    if seed == 0:
        return tuple(asks)
    source = random.Random(seed)  # noqa: S311 - a load that can be repeated
    others = (replace(ask, at_ms=max(0.0, ask.at_ms + source.uniform(-MOVED_MS, MOVED_MS))) for ask in asks)
    return tuple(sorted(others, key=lambda ask: ask.at_ms))


def alone(asks: Sequence[Ask]) -> dict[str, Run]:
    orders: dict[str, Order] = {"FCFS": Arrival(), "LCF": Counters(), "VTC": VirtualTokens()}
    return {name: replay_alone(asks, Engine(SERVER, TIMING), order) for name, order in orders.items()}


async def behind_tokenpool(asks: Sequence[Ask], offer: Offer, progress: Progress) -> Run | None:
    """On a Valkey of its own; None once asked to stop. Raises StackError, LedgerUnavailable and Disquiet."""
    with run_directory() as folder:
        async with Children(folder) as children:

            async def whole() -> Run:
                await valkey.ready(await valkey.start(children, folder))
                return await replay(valkey.url(folder), asks, Engine(SERVER, TIMING), offer, progress)

            with stop_signals(children):
                return await children.while_alive(whole())
