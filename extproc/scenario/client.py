"""An open-loop client: each request goes out when it is due, whatever became of the others; answers are streams."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import aiohttp
import msgspec

from extproc.scenario.configuration import MODEL
from extproc.scenario.loads import Request
from extproc.scenario.outcomes import Ending, Outcome

TOO_MANY_REQUESTS = 429
BAD = 400  # and above: no answer
LONGEST_REASON = 200


class _Delta(msgspec.Struct):
    content: str = ""


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Event(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)


_EVENT = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Clock:
    """Scenario time, of which `speed` seconds pass in a second. Begins at 0."""

    speed: float
    origin: float  # of the loop's time

    @classmethod
    def started(cls, speed: float) -> Clock:
        return cls(speed, asyncio.get_running_loop().time())

    @property
    def now(self) -> float:
        return (asyncio.get_running_loop().time() - self.origin) * self.speed

    async def until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.now) / self.speed)


@dataclass(slots=True)
class _Course:
    """What is known of a request so far."""

    request: Request
    sent_late: float = 0.0
    ending: Ending = Ending.UNFINISHED
    status: int = 0
    reason: str = ""
    first_token: float | None = None
    tokens: int = 0
    retry_after: float | None = None


class OpenLoop:
    """Sends what is scheduled, and keeps what became of it."""

    def __init__(self, base_url: str, keys: Mapping[str, str], clock: Clock) -> None:
        self.outcomes: list[Outcome] = []
        self.tokens: Counter[tuple[str, int]] = Counter()  # by tenant and second
        self._url = f"{base_url}/chat/completions"
        self._keys = keys  # by tenant
        self._clock = clock

    async def drive(self, requests: Iterable[Request], until: float) -> None:
        """Returns when all have ended; what has not by `until` is left then."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
            tasks = []
            for request in requests:
                await self._clock.until(request.at)
                tasks.append(group.create_task(self._send(session, request)))
            if tasks:
                await asyncio.wait(tasks, timeout=max(0.0, until - self._clock.now) / self._clock.speed)
            for task in tasks:
                task.cancel()

    async def warm_up(self, count: int) -> None:
        """So many short requests of each tenant, one after another: the first ones that a stack answers take longer."""
        async with aiohttp.ClientSession() as session:
            for number, tenant in itertools.product(range(count), self._keys):
                await self._send(session, Request(-1 - number, tenant, self._clock.now, 1))

    async def _send(self, session: aiohttp.ClientSession, request: Request) -> None:
        course = _Course(request, sent_late=self._clock.now - request.at)
        try:
            await self._ask(session, course)
        except aiohttp.ClientError as error:
            course.ending = Ending.BROKEN_OFF if course.status else Ending.FAILED
            course.reason = type(error).__name__
        finally:  # cancelled, too, when the run is over
            self.outcomes.append(self._outcome(course))

    async def _ask(self, session: aiohttp.ClientSession, course: _Course) -> None:
        request = course.request
        headers = {"authorization": f"Bearer {self._keys[request.tenant]}"}
        async with session.post(self._url, json=body(request), headers=headers) as answer:
            course.status = answer.status
            if answer.status >= BAD:
                await self._refused(course, answer)
                return
            rest = b""
            async for data in answer.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                self._count(course, sum(map(tokens_in, events)))
            course.ending = Ending.DONE

    async def _refused(self, course: _Course, answer: aiohttp.ClientResponse) -> None:
        text = await answer.text()
        course.reason = answer.headers.get("x-tokenpool-reason", text[:LONGEST_REASON])
        retry_ms = answer.headers.get("retry-after-ms")
        course.retry_after = None if retry_ms is None else int(retry_ms) / 1000 * self._clock.speed
        course.ending = Ending.REFUSED if answer.status == TOO_MANY_REQUESTS else Ending.FAILED
        if course.reason == "preempted":
            course.ending = Ending.BROKEN_OFF

    def _count(self, course: _Course, tokens: int) -> None:
        if tokens and course.first_token is None:
            course.first_token = self._clock.now - course.request.at
        course.tokens += tokens
        self.tokens[course.request.tenant, int(self._clock.now)] += tokens

    def _outcome(self, course: _Course) -> Outcome:
        return Outcome(
            request=course.request,
            ending=course.ending,
            status=course.status,
            reason=course.reason,
            first_token=course.first_token,
            end=self._clock.now - course.request.at,
            tokens=course.tokens,
            retry_after=course.retry_after,
            sent_late=course.sent_late,
        )


def body(request: Request) -> dict[str, object]:
    message = {"role": "user", "content": f"{request.tenant} asks for the {request.number}th time."}
    return {"model": MODEL, "messages": [message], "max_tokens": request.output_tokens, "stream": True}


def tokens_in(event: bytes) -> int:
    """Simulated servers send each token as an event of its own."""
    data = event.strip().removeprefix(b"data: ")
    if not data.startswith(b"{"):
        return 0
    return sum(1 for choice in _EVENT.decode(data).choices if choice.delta.content)
