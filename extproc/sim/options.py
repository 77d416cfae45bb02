"""What a simulated server is told: from a `sim://` endpoint's URL and its pool's part of the configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from extproc.core.policy import Vector
from extproc.sim.batching import Slots
from extproc.sim.timing import Timing, constant_decode, decode_for, linear_prefill

SCHEME = "sim"

# What a URL may say, with what it means; `tokenpool` shows this where a name is wrong.
PARAMETERS = {
    "speed": "divides all times",
    "seed": "of answer texts and lengths",
    "max_num_seqs": "sequences in a batch",
    "kv_tokens": "KV cache",
    "max_model_len": "longest prompt and answer",
    "tokens_per_second": "what a full batch generates",
    "decode_ms": "one decode step",
    "prefill_ms_per_1k": "reading 1,000 prompt tokens",
    "output_tokens": "median answer where a request sets no limit",
    "stops": "true: answers may end by themselves before max_tokens",
    "faults": "true: obey x-sim-fault headers, show /sim/last",
}


@dataclass(frozen=True, slots=True)
class SimOptions:
    model: str
    max_model_len: int
    slots: Slots
    aliases: tuple[str, ...] = ()  # further names it is served under
    timing: Timing = field(default_factory=Timing)
    seed: int = 0
    output_tokens: int = 200  # median length of an answer where the request sets no limit
    stops: bool = False  # answers may end before max_tokens; else they always use it up, as an untrained model's do
    faults: bool = False

    @property
    def context_tokens(self) -> int:
        """The longest prompt and answer there is room for; vLLM would not start with a KV cache below its length."""
        return min(self.max_model_len, self.slots.kv_tokens)


def options_from_url(
    url: str,
    *,
    model: str,
    max_model_len: int,
    capacity: Vector,
    aliases: tuple[str, ...] = (),
) -> SimOptions:
    """Options of one endpoint, such as `sim://?speed=10&max_num_seqs=16`.

    Raises:
        ValueError: where the URL is not a `sim://` one, or a parameter is unknown, given twice or has a bad value.
    """
    given = _parameters(url)
    slots = Slots(
        max_num_seqs=_integer(given, "max_num_seqs", capacity.concurrency, least=1),
        kv_tokens=_integer(given, "kv_tokens", capacity.kv_tokens, least=2),
    )
    return SimOptions(
        model=model,
        max_model_len=_integer(given, "max_model_len", max_model_len, least=2),
        slots=slots,
        aliases=aliases,
        timing=_timing(given, slots),
        seed=_integer(given, "seed", 0, least=0),
        output_tokens=_integer(given, "output_tokens", 200, least=1),
        stops=_flag(given, "stops"),
        faults=_flag(given, "faults"),
    )


def _parameters(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.scheme != SCHEME:
        raise ValueError(f"{url!r} does not begin with {SCHEME}://")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(pairs)
    unknown = sorted(given.keys() - PARAMETERS.keys())
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)} in {url!r}; known: {', '.join(PARAMETERS)}")
    if len(given) < len(pairs):
        raise ValueError(f"a parameter is given twice in {url!r}")
    return given


def _timing(given: Mapping[str, str], slots: Slots) -> Timing:
    if "decode_ms" in given and "tokens_per_second" in given:
        raise ValueError("decode_ms and tokens_per_second both set the decode speed: give one")
    timing = Timing()
    prefill, decode = timing.prefill, timing.decode
    if "prefill_ms_per_1k" in given:
        prefill = linear_prefill(_number(given, "prefill_ms_per_1k"))
    if "decode_ms" in given:
        decode = constant_decode(_number(given, "decode_ms"))
    if "tokens_per_second" in given:
        decode = decode_for(_number(given, "tokens_per_second"), slots.max_num_seqs)
    speed = _number(given, "speed") if "speed" in given else 1.0
    return Timing(prefill, decode).faster(speed)


def _number(given: Mapping[str, str], name: str) -> float:
    try:
        value = float(given[name])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}={given[name]} is not a number above 0")
    return value


def _integer(given: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise ValueError(f"{name}={text} is not a whole number of at least {least}")
    return int(text)


def _flag(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "false")
    if text not in {"true", "false"}:
        raise ValueError(f"{name}={text} is neither true nor false")
    return text == "true"
