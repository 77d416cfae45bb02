"""A short, bounded calibration of a running OpenAI-compatible server: how fast it reads, and how fast it decodes."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import aiohttp
import msgspec

from extproc.sim.timing import Curve, Timing

MS = 1000.0
SHORTEST_PROMPT = 128
REPEATS = 3
DECODE_PROMPT = 16  # tokens
DECODE_TOKENS = 48  # of each stream
FEWEST_STEPS = 4  # in which all streams must have run together
MOST_STREAMS = 256
TOKEN_IDS = (100, 1000)  # in every vocabulary; drawn, so that no prefix cache knows the prompt
_KV_CACHE = re.compile(r"^vllm:cache_config_info\{(?P<labels>[^}]*)\}", re.MULTILINE)
_LABEL = re.compile(r'\b(block_size|num_gpu_blocks)="(\d+)"')

Progress = Callable[[str], object]
Point = tuple[float, float]


class MeasuringError(Exception):
    """Raised where a server cannot be measured. The message names its URL, and what to do."""


@dataclass(frozen=True, slots=True)
class Measured:
    model: str
    max_model_len: int
    timing: Timing
    sequences: int  # the most that were seen to run at a time
    kv_tokens: int | None  # None where the server does not say


class _Model(msgspec.Struct):
    id: str
    max_model_len: int


class _Models(msgspec.Struct):
    data: list[_Model]


async def measure(url: str, seconds: float, api_key: str | None, progress: Progress = lambda _: None) -> Measured:
    """Reading takes half of the time at most, decoding the rest; what is under way when time is up is finished.

    Raises MeasuringError.
    """
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=max(seconds, 1.0))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        server = _Server(url.rstrip("/").removesuffix("/v1"), session, progress)
        try:
            return await server.measure(time.monotonic() + seconds / 2, time.monotonic() + seconds)
        except aiohttp.ClientError as error:
            raise MeasuringError(f"{url}: {error}") from error
        except TimeoutError as error:
            raise MeasuringError(f"{url}: no answer within {seconds:g} s; give more --measure-seconds") from error


class _Server:
    def __init__(self, url: str, session: aiohttp.ClientSession, progress: Progress) -> None:
        self._url = url
        self._session = session
        self._progress = progress
        self._source = random.Random(time.time_ns())  # noqa: S311 - prompts that no earlier measurement has used
        self._model = ""

    async def measure(self, reading_until: float, until: float) -> Measured:
        served = await self._served()
        self._model = served.id
        await self._read_ms(SHORTEST_PROMPT)  # the first request is slower than all others
        prefill = [point async for point in self._prefill(served.max_model_len, reading_until)]
        decode = [point async for point in self._decode(until)]
        timing = Timing(Curve(_ascending(prefill)), Curve(_ascending(decode)))
        return Measured(served.id, served.max_model_len, timing, int(decode[-1][0]), await self._kv_tokens())

    async def _served(self) -> _Model:
        async with self._session.get(f"{self._url}/v1/models") as response:
            body = await response.read()
            if response.status != 200:  # noqa: PLR2004 - OK
                raise MeasuringError(f"{self._url}/v1/models answers {response.status}: {_start(body)}")
        try:
            return msgspec.json.decode(body, type=_Models).data[0]
        except (msgspec.DecodeError, IndexError) as error:
            raise MeasuringError(
                f"{self._url}/v1/models names no model with its max_model_len, as vLLM does"
            ) from error

    async def _kv_tokens(self) -> int | None:
        async with self._session.get(f"{self._url}/metrics") as response:
            return kv_tokens_in(await response.text()) if response.status == 200 else None  # noqa: PLR2004 - OK

    async def _prefill(self, max_model_len: int, until: float) -> AsyncIterator[Point]:
        """At doubling lengths; at one at least."""
        length = min(SHORTEST_PROMPT, max_model_len - 1)
        while True:
            self._progress(f"reading {length:,} tokens")
            yield length, median([await self._read_ms(length) for _ in range(REPEATS)])
            if length == max_model_len - 1 or time.monotonic() >= until:
                return
            length = min(length * 2, max_model_len - 1)

    async def _read_ms(self, length: int) -> float:
        began = time.monotonic()
        async with self._complete(self._prompt(length), tokens=1, stream=False) as response:
            await self._checked(response)
            await response.read()
        return (time.monotonic() - began) * MS

    async def _decode(self, until: float) -> AsyncIterator[Point]:
        """At doubling numbers of streams, as long as all run together; at one stream at least."""
        streams = 1
        while streams <= MOST_STREAMS and (streams == 1 or time.monotonic() < until):
            self._progress(f"decoding {streams} at a time")
            times = await asyncio.gather(*(self._token_times() for _ in range(streams)))
            step_ms = together_ms(times)
            if step_ms is None:
                if streams == 1:
                    raise MeasuringError(f"{self._url}: a stream of {DECODE_TOKENS} tokens came in too few parts")
                return
            yield streams, step_ms
            streams *= 2

    async def _token_times(self) -> list[float]:
        async with self._complete(self._prompt(DECODE_PROMPT), tokens=DECODE_TOKENS, stream=True) as response:
            await self._checked(response)
            return [time.monotonic() async for line in response.content if line.startswith(b"data: {")]

    def _complete(self, prompt: list[int], *, tokens: int, stream: bool) -> aiohttp.client._RequestContextManager:
        body: dict[str, Any] = {"model": self._model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
        return self._session.post(f"{self._url}/v1/completions", json={**body, "stream": stream})

    async def _checked(self, response: aiohttp.ClientResponse) -> None:
        if response.status != 200:  # noqa: PLR2004 - OK
            raise MeasuringError(
                f"{self._url}/v1/completions answers {response.status}: {_start(await response.read())}"
            )

    def _prompt(self, length: int) -> list[int]:
        return [self._source.randrange(*TOKEN_IDS) for _ in range(length)]


def kv_tokens_in(metrics: str) -> int | None:
    """The size of the KV cache as vLLM's metrics say it; None where they do not."""
    found = _KV_CACHE.search(metrics)
    labels = dict(_LABEL.findall(found["labels"])) if found else {}
    return int(labels["block_size"]) * int(labels["num_gpu_blocks"]) if len(labels) == 2 else None  # noqa: PLR2004


def together_ms(times: Sequence[Sequence[float]]) -> float | None:
    """A step's time while all streams had begun and none had ended; None where they hardly ran together."""
    if not all(times):
        return None
    begin, end = max(one[0] for one in times), min(one[-1] for one in times)
    within = [[at for at in one if begin <= at <= end] for one in times]
    if min(map(len, within)) <= FEWEST_STEPS:
        return None
    return median((one[-1] - one[0]) / (len(one) - 1) for one in within) * MS


def _ascending(points: Iterable[Point]) -> tuple[Point, ...]:
    """What is measured to be slower with less counts as no slower: a curve of noise would go down."""
    backwards = list(points)[::-1]
    least = itertools.accumulate((ms for _, ms in backwards), min)
    return tuple(zip((x for x, _ in backwards), least, strict=True))[::-1]


def _start(body: bytes) -> str:
    return " ".join(body[:200].decode(errors="replace").split())
