"""Orders in which a server may serve its clients: as they came, least served first, and VTC's counters."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Protocol

from extproc.scenario.arena import Ask
from extproc.scenario.vtc import OUTPUT_WEIGHT, PROMPT_WEIGHT


class Order(Protocol):
    """Of the requests that wait; none starts before the one that is next."""

    def arrived(self, ask: Ask) -> None: ...

    def next(self) -> Ask | None: ...

    def started(self, ask: Ask) -> None:
        """The next one begins to be served."""

    def generated(self, ask: Ask) -> None:
        """One token of its answer."""

    def put_off(self, ask: Ask) -> None:
        """It had begun, and must wait again."""


class Arrival:
    """First come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[Ask] = deque()

    def arrived(self, ask: Ask) -> None:
        self._waiting.append(ask)

    def next(self) -> Ask | None:
        return self._waiting[0] if self._waiting else None

    def started(self, ask: Ask) -> None:
        self._waiting.remove(ask)

    def generated(self, ask: Ask) -> None: ...

    def put_off(self, ask: Ask) -> None:
        self._waiting.appendleft(ask)


class Counters:
    """Least counter first (LCF): a client's counter is the service it ever had."""

    def __init__(self) -> None:
        self._counters: dict[str, float] = defaultdict(float)
        self._waiting: dict[str, deque[Ask]] = defaultdict(deque)

    def arrived(self, ask: Ask) -> None:
        self._waiting[ask.client].append(ask)

    def next(self) -> Ask | None:
        least = min(self._backlogged(), key=lambda client: self._counters[client], default=None)
        return None if least is None else self._waiting[least][0]

    def started(self, ask: Ask) -> None:
        self._waiting[ask.client].remove(ask)
        self._counters[ask.client] += PROMPT_WEIGHT * ask.prompt_tokens

    def generated(self, ask: Ask) -> None:
        self._counters[ask.client] += OUTPUT_WEIGHT

    def put_off(self, ask: Ask) -> None:
        self._waiting[ask.client].appendleft(ask)
        self._counters[ask.client] -= PROMPT_WEIGHT * ask.prompt_tokens  # charged when it starts again

    def _backlogged(self) -> list[str]:
        return [client for client, waiting in self._waiting.items() if waiting]


class VirtualTokens(Counters):
    """VTC: who comes back after a pause starts level with the least of those that wait, so that none saves up."""

    def arrived(self, ask: Ask) -> None:
        others = [self._counters[client] for client in self._backlogged() if client != ask.client]
        if others and not self._waiting[ask.client]:
            self._counters[ask.client] = max(self._counters[ask.client], min(others))
        super().arrived(ask)
