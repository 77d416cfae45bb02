from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio
from click.testing import CliRunner

from extproc.cli.scenario_fairness import fairness
from extproc.scenario.arena import PUBLISHED, SERVER, TIMING, Ask, Row, read
from extproc.scenario.behind_ledger import Offer, replay
from extproc.scenario.engine import Engine, Run
from extproc.scenario.fairness import SIMULATED, TOKENPOOL, Comparison, alone, moved
from extproc.sim.batching import Slots
from tests.scenario.traces import arena_trace, uneven, write

SMALL = Slots(max_num_seqs=64, kv_tokens=3000)
SMALL_OFFER = Offer(kv_tokens=4000)


async def behind(url: str, asks: Sequence[Ask], slots: Slots = SMALL, offer: Offer = SMALL_OFFER) -> Run:
    async with redis.asyncio.from_url(url) as client:
        await client.flushall()
    return await replay(url, asks, Engine(slots, TIMING), offer, lambda _: None)


def median_wait(run: Run, client: str) -> float:
    waits = sorted(
        one.first_token_at - one.asked_at for one in run.served if one.client == client and one.first_token_at
    )
    return waits[len(waits) // 2]


async def test_a_busy_client_does_not_keep_the_others_waiting_and_nobody_is_refused(redis_url: str) -> None:
    asks = uneven()
    run = await behind(redis_url, asks)
    assert run.refused == 0
    assert median_wait(run, "busy") > 10
    assert all(median_wait(run, f"light-{i}") < 0.2 * median_wait(run, "busy") for i in range(4))


async def test_a_run_can_be_repeated(redis_url: str) -> None:
    asks = uneven(40)
    assert await behind(redis_url, asks) == await behind(redis_url, asks)


async def test_who_waits_for_too_long_is_refused_and_counted(redis_url: str) -> None:
    asks = uneven(60)
    run = await behind(redis_url, asks, offer=replace(SMALL_OFFER, max_wait_ms=5000))
    assert run.refused > 0.5 * len(asks)
    refused = Counter(one.client for one in run.served if one.ended_at is None)
    assert refused["busy"] > 0.9 * run.refused
    waits = [one.first_token_at - one.asked_at for one in run.served if one.first_token_at is not None]
    assert max(waits) < 5 + 1 + 3  # its time, until the next tick, and a prompt that waits for the server's own KV


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_moves_arrivals_a_little_and_nothing_else(seed: int) -> None:
    asks = uneven(20)
    others = {ask.number: ask for ask in moved(asks, seed)}
    assert others.keys() == {ask.number for ask in asks}
    assert max(abs(ask.at_ms - others[ask.number].at_ms) for ask in asks) <= 50 * seed
    assert all(replace(others[ask.number], at_ms=ask.at_ms) == ask for ask in asks)


def test_the_command_prints_every_order_and_draws_them(tmp_path: Path) -> None:
    trace = write(tmp_path / "trace.csv", uneven(100))
    result = CliRunner().invoke(fairness, ["--trace", str(trace), "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [row["order"] for row in document["orders"]] == ["FCFS", "LCF", "VTC", TOKENPOOL]
    assert {row["server"] for row in document["orders"]} == {SIMULATED}  # nothing was published of this trace
    assert (document["clients"], document["orders"][-1]["refused"]) == (5, 0)
    assert Path(document["picture"]).read_bytes().startswith(b"\x89PNG")


def test_a_file_that_is_no_trace_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("time\n1\n")
    result = CliRunner().invoke(fairness, ["--trace", str(path), "--no-picture"])
    assert result.exit_code == 2
    assert "expected the columns" in result.stderr


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    trace = write(tmp_path / "trace.csv", uneven(10))
    result = CliRunner().invoke(fairness, ["--trace", str(trace)])
    assert result.exit_code == 1
    assert "pip install 'tokenpool[plan]'" in result.stderr


@pytest.fixture(scope="module")
def arena() -> tuple[Ask, ...]:
    return read(arena_trace())


def row_of(comparison: Comparison, order: str) -> Row:
    [row] = [row for row in comparison.rows() if row.order == order and row.server == SIMULATED]
    return row


def test_the_simulated_server_does_as_the_published_one(arena: tuple[Ask, ...]) -> None:
    """VTC's largest difference is left out: it varies between 330 and 600 with arrivals moved by 50 ms."""
    comparison = Comparison(arena, alone(arena))
    for published in PUBLISHED[:3]:
        row = row_of(comparison, published.order)
        assert row.tokens_per_second == pytest.approx(published.tokens_per_second, rel=0.02)
        assert row.mean == pytest.approx(published.mean, rel=0.12)
        assert row.ttft_p99_seconds == pytest.approx(published.ttft_p99_seconds, rel=0.05)
        assert (row.refused, len(arena)) == (0, 1500)
    fcfs = row_of(comparison, "FCFS")
    assert fcfs.largest == pytest.approx(PUBLISHED[0].largest, rel=0.05)
    assert fcfs.ttft_p50_seconds == pytest.approx(PUBLISHED[0].ttft_p50_seconds, rel=0.1)


async def test_tokenpool_is_as_fair_as_vtc_at_the_same_throughput(redis_url: str, arena: tuple[Ask, ...]) -> None:
    [vtc] = [row for row in PUBLISHED if row.order == "VTC"]
    run = await behind(redis_url, arena, SERVER, Offer())
    row = row_of(Comparison(arena, {TOKENPOOL: run}), TOKENPOOL)
    assert row.largest <= vtc.largest
    assert row.mean <= vtc.mean
    assert row.tokens_per_second >= 0.99 * vtc.tokens_per_second
    assert row.refused == 0
