"""The options of `tokenpool plan` that describe a server, and the server they give: by figures, or as measured."""
# ruff: noqa: PLC0415 - numpy and aiohttp are imported where a server is described, not by every command

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from extproc.cli.bars import progress_bars
from extproc.cli.failures import Failure
from extproc.cli.options import grouped

if TYPE_CHECKING:
    from extproc.planning.measuring import Measured
    from extproc.planning.server import Server
    from extproc.sim.timing import Curve, Timing

KV_TOKENS = 1_048_576  # about what eight 80 GB GPUs have beside Llama-2-70B: 320 KiB a token
SEQUENCES = 64  # the largest batch whose steps were measured
MAX_MODEL_LEN = 65_536
GPUS = {"a100": 8, "h100": 8}
CURVE = "X:MS,..."

_OPTIONS = (
    click.option(
        "--timing",
        type=click.Choice(sorted(GPUS)),
        help="Measured times of llama2-70b on eight of these GPUs.  [default: a100]",
    ),
    click.option(
        "--prefill-ms", metavar=CURVE, help="Your own: ms to read a prompt, by its tokens, as 128:65,8192:1550."
    ),
    click.option("--decode-ms", metavar=CURVE, help="Your own: ms of a decode step, by sequences, as 1:45,64:72."),
    click.option("--measure", metavar="URL", help="Measure both, and --max-model-len, on a running server."),
    click.option(
        "--measure-seconds", type=click.FloatRange(1, 600), default=30.0, show_default=True, help="About how long."
    ),
    click.option("--api-key", envvar="OPENAI_API_KEY", help="Of the server to measure.  [env: OPENAI_API_KEY]"),
    click.option(
        "--kv-tokens", type=click.IntRange(1), help=f"One server's KV cache.  [default: {KV_TOKENS:,}, or as measured]"
    ),
    click.option(
        "--max-num-seqs", type=click.IntRange(1), help=f"Sequences at a time.  [default: {SEQUENCES}, or as measured]"
    ),
    click.option(
        "--max-model-len",
        type=click.IntRange(512),
        help=f"The longest request.  [default: {MAX_MODEL_LEN:,}, or as measured]",
    ),
    click.option(
        "--step-tokens", type=click.IntRange(1), default=2048, show_default=True, help="vLLM's max_num_batched_tokens."
    ),
    click.option(
        "--reserve",
        is_flag=True,
        help="Run only as many sequences as fit at their pool's greatest length, as the papers count; vLLM does not.",
    ),
)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options' values, named as they are."""

    timing: str | None
    prefill_ms: str | None
    decode_ms: str | None
    measure: str | None
    measure_seconds: float
    api_key: str | None
    kv_tokens: int | None
    max_num_seqs: int | None
    max_model_len: int | None
    step_tokens: int
    reserve: bool


@dataclass(frozen=True, slots=True)
class Described:
    server: Server
    max_model_len: int
    gpus: int  # where they are known, else 1


server_options = grouped("server", ServerOptions, _OPTIONS)


def described(options: ServerOptions) -> Described:
    """Raises UsageError and Failure."""
    if options.measure:
        return _measured(options)
    return _of_figures(options, _timing(options), KV_TOKENS, SEQUENCES, MAX_MODEL_LEN)


def _measured(options: ServerOptions) -> Described:
    if options.timing or options.prefill_ms or options.decode_ms:
        raise click.UsageError("--measure finds what --timing, --prefill-ms and --decode-ms say: give one or the other")
    found = _measure(options)
    kv_tokens = options.kv_tokens or found.kv_tokens
    if kv_tokens is None:
        raise Failure(f"{options.measure} does not say how large its KV cache is: give --kv-tokens", exit_code=2)
    click.echo(f"tokenpool: measured: {as_options(found)}", err=True)
    return _of_figures(options, found.timing, kv_tokens, found.sequences, found.max_model_len)


def _measure(options: ServerOptions) -> Measured:
    import asyncio

    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    from extproc.planning.measuring import MeasuringError, measure

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with progress_bars(*columns) as bar:
        task = bar.add_task("measuring")
        try:
            return asyncio.run(
                measure(
                    str(options.measure),
                    options.measure_seconds,
                    options.api_key,
                    lambda what: bar.update(task, description=what),
                )
            )
        except MeasuringError as error:
            raise Failure(str(error)) from error


def as_options(found: Measured) -> str:
    """What gives the same without measuring again."""
    prefill, decode = (
        ",".join(f"{x:.0f}:{ms:.4g}" for x, ms in curve.points) for curve in (found.timing.prefill, found.timing.decode)
    )
    kv_tokens = f" --kv-tokens {found.kv_tokens}" if found.kv_tokens else ""
    limits = f"--max-num-seqs {found.sequences} --max-model-len {found.max_model_len}{kv_tokens}"
    return f"--prefill-ms {prefill} --decode-ms {decode} {limits}"


def _of_figures(options: ServerOptions, timing: Timing, kv_tokens: int, sequences: int, longest: int) -> Described:
    from extproc.planning.server import Server

    max_model_len = options.max_model_len or longest
    kv_tokens = options.kv_tokens or kv_tokens
    if kv_tokens < max_model_len:
        raise click.UsageError(
            f"a KV cache of {kv_tokens:,} tokens holds no request of --max-model-len {max_model_len:,};"
            " vLLM would not start"
        )
    server = Server(timing, kv_tokens, options.max_num_seqs or sequences, options.step_tokens, options.reserve)
    is_known = not (options.prefill_ms or options.decode_ms or options.measure)
    return Described(server, max_model_len, GPUS[options.timing or "a100"] if is_known else 1)


def _timing(options: ServerOptions) -> Timing:
    from extproc.sim.timing import MEASURED, Timing

    known = MEASURED[options.timing or "a100"]
    if options.timing and options.prefill_ms and options.decode_ms:
        raise click.UsageError("--timing says nothing beside --prefill-ms and --decode-ms: leave it out")
    return Timing(
        _curve("--prefill-ms", options.prefill_ms, known.prefill),
        _curve("--decode-ms", options.decode_ms, known.decode),
    )


def _curve(option: str, text: str | None, otherwise: Curve) -> Curve:
    from extproc.sim.timing import Curve

    if text is None:
        return otherwise
    try:
        pairs = [one.split(":") for one in text.split(",")]
        return Curve(tuple((float(x), float(ms)) for x, ms in pairs))
    except ValueError as error:
        raise click.UsageError(
            f"{option} {text!r} is not like 1:45,64:72, with ascending numbers before the colons"
        ) from error
