"""`tokenpool sim`: one simulated vLLM server."""
# ruff: noqa: PLC0415 - aiohttp is imported by the commands that serve, not by every other one

from __future__ import annotations

import click

from extproc.cli import options
from extproc.cli.failures import Failure
from extproc.cli.listening import require_free


@click.command(short_help="Run one simulated vLLM server.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=options.PORT_OR_ANY, default=8000, show_default=True, help="0: any free one.")
@click.option("--model", default="llama-3-8b", show_default=True, help="The name it serves.")
@click.option("--alias", "aliases", multiple=True, help="A further name; may be repeated.")
@click.option("--max-model-len", type=click.IntRange(2), default=8192, show_default=True, help="Longest request.")
@click.option("--kv-tokens", type=click.IntRange(2), default=262_144, show_default=True, help="KV cache.")
@click.option("--concurrency", type=click.IntRange(1), default=64, show_default=True, help="Sequences in a batch.")
@click.option("--speed", type=click.FloatRange(0, min_open=True), help="Divides all times.  [default: 1]")
@click.option("--url", default="sim://", help="The parameters of a configuration's endpoint, as in sim://?seed=7.")
def sim(  # noqa: PLR0913 - one parameter an option
    *,
    host: str,
    port: int,
    model: str,
    aliases: tuple[str, ...],
    max_model_len: int,
    kv_tokens: int,
    concurrency: int,
    speed: float | None,
    url: str,
) -> None:
    """Serve OpenAI's API from a simulated vLLM, with a real one's timing and limits.

    \b
    Examples:
      tokenpool sim --port 8101 --speed 10
      tokenpool sim --url 'sim://?max_num_seqs=16&faults=true'
    """  # noqa: D301 - click wants the character
    import asyncio

    from extproc.core.policy import Vector
    from extproc.sim.options import options_from_url

    if speed is not None:
        url += f"{'&' if '?' in url else '?'}speed={speed:g}"
    capacity = Vector(kv_tokens=kv_tokens, concurrency=concurrency)
    try:
        parsed = options_from_url(url, model=model, max_model_len=max_model_len, capacity=capacity, aliases=aliases)
    except ValueError as error:
        raise Failure(str(error), exit_code=2) from error
    from extproc.sim.server import run_until_signal

    require_free(("--port", host, port))
    asyncio.run(run_until_signal(parsed, host, port))
