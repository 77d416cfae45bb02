"""The lead and the shares on a real server, with clocks that only the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.core.policy import Model, Policy, Pool, ServiceClass, Vector
from extproc.core.seen import PoolShares, Seen, Shares, Standing
from extproc.ledger import LedgerUnavailable
from extproc.redis_ledger import RedisControl, connect
from extproc.redis_ledger.columns import Layout, Texts
from tests.ledger.conftest import Silent, entitlement

TERM_MS = 3000
SERVER = Vector(1000, 100_000, 16)
MODEL = Model("m", (Pool("short", ("http://a:1",), 8192, SERVER), Pool("long", ("http://b:1",), 65_536, SERVER)))
NAMES = ("ada", "at", "bob")
POLICY = Policy((MODEL,), tuple(entitlement(name, ServiceClass.ELASTIC, Vector(100, 10_000, 2)) for name in NAMES))
KEY_DAYS_MS = 7 * 86_400_000


class Sidecar:
    """One that takes part in the lead, with a clock of its own."""

    def __init__(self, client: redis.asyncio.Redis, policy: Policy = POLICY) -> None:
        self.now = 1_000_000
        self.client = client
        self.control = RedisControl(client, policy, Silent(), now_ms=lambda: self.now)

    async def lead(self, holder: str = "one") -> int:
        return await self.control.lead("m", holder, TERM_MS)

    async def seen(self) -> Seen:
        return await self.control.seen("m", (1, 1))

    async def read(self, name: str) -> dict[str, str]:
        return {str(key): str(text) for key, text in (await self.client.hgetall(f"tp3:{{m}}:{name}")).items()}

    async def write(self, name: str, records: Mapping[str, str]) -> None:
        for field, record in records.items():
            await self.client.hset(f"tp3:{{m}}:{name}", field, record)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = connect(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def sidecar(client: redis.asyncio.Redis) -> Sidecar:
    return Sidecar(client)


def shares(at_ms: int = 1_000_000, weight: float = 4.0, count: int = len(NAMES)) -> Shares:
    def column(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.array([values] * count, dtype=np.float64)

    return Shares(
        weight=column(weight)[:, 0],
        share=column(99.5, 10_000, 2),
        cap=column(150.25, 30_000, 4),
        pools=(
            PoolShares(1, np.array([99.5, 10_000.0, 2.0]), np.array([7.0, 300.0, 1.0]), 2),
            PoolShares(1, np.zeros(3), np.zeros(3), 1),
        ),
        standing=Standing(
            at_ms=at_ms,
            debt=column(-0.25)[:, 0],
            asked=column(1200)[:, 0],
            served=column(1100)[:, 0],
            asked_rate=column(12.5)[:, 0],
            served_rate=column(11.125)[:, 0],
            wanted=(((900_000, 3), (1_000_000, 2)), ()),
        ),
    )


async def test_one_of_two_leads(sidecar: Sidecar) -> None:
    assert await sidecar.lead("one") > 0
    assert await sidecar.lead("two") == 0


async def test_who_leads_keeps_the_lead_and_the_term_while_it_asks_in_time(sidecar: Sidecar) -> None:
    term = await sidecar.lead("one")
    for _ in range(5):
        sidecar.now += TERM_MS - 1
        assert await sidecar.lead("one") == term
        assert await sidecar.lead("two") == 0


async def test_a_term_that_has_run_out_is_anybodys_and_the_next_has_a_higher_number(sidecar: Sidecar) -> None:
    first = await sidecar.lead("one")
    sidecar.now += TERM_MS
    second = await sidecar.lead("two")
    assert second > first
    assert await sidecar.lead("one") == 0
    sidecar.now += TERM_MS
    assert await sidecar.lead("two") > second


async def test_terms_rise_even_where_the_server_has_lost_everything(sidecar: Sidecar) -> None:
    first = await sidecar.lead("one")
    sidecar.now += 1
    await sidecar.client.flushall()
    assert await sidecar.lead("two") > first


async def test_models_are_led_apart(client: redis.asyncio.Redis) -> None:
    other = replace(MODEL, name="n")
    sidecar = Sidecar(client, Policy((MODEL, other), POLICY.entitlements))
    assert await sidecar.lead("one") > 0
    assert await sidecar.control.lead("n", "two", TERM_MS) > 0


async def test_shares_of_the_newest_term_take_effect(sidecar: Sidecar) -> None:
    term = await sidecar.lead()
    await sidecar.seen()
    assert await sidecar.control.set_shares("m", term, shares())
    record = "4000 150 30000 4 99 10000 2 -250000 1200 1100 12500 11125"
    assert await sidecar.read("shares") == {
        **dict.fromkeys(NAMES, record),
        "pool short": "1 99 10000 2 300 1 2",
        "pool long": "1 0 0 0 0 0 1",
        "history short": "900000:3 1000000:2",
        "tick at": "1000000",
    }


async def test_shares_of_an_older_term_have_no_effect(sidecar: Sidecar) -> None:
    old = await sidecar.lead("one")
    sidecar.now += TERM_MS
    new = await sidecar.lead("two")
    assert await sidecar.control.set_shares("m", new, shares(weight=2.0))
    before = await sidecar.read("shares")
    assert not await sidecar.control.set_shares("m", old, shares(weight=9.0))
    assert await sidecar.read("shares") == before


async def test_shares_of_a_term_that_has_run_out_have_no_effect(sidecar: Sidecar) -> None:
    """Also where nobody else took the lead meanwhile: who was stopped for so long has seen an old state."""
    term = await sidecar.lead()
    sidecar.now += TERM_MS
    assert not await sidecar.control.set_shares("m", term, shares())
    assert await sidecar.read("shares") == {}


async def test_a_leader_that_was_stopped_between_its_look_and_its_word_sets_nothing(
    client: redis.asyncio.Redis, sidecar: Sidecar
) -> None:
    paused, other = sidecar, Sidecar(client)
    term = await paused.lead("one")
    await paused.seen()
    other.now += TERM_MS + 1
    assert await other.control.set_shares("m", await other.lead("two"), shares(other.now))
    paused.now = other.now
    assert not await paused.control.set_shares("m", term, shares(paused.now + 1))
    assert (await other.read("shares"))["tick at"] == str(other.now)


async def test_shares_of_a_leader_whose_server_lost_everything_have_no_effect(sidecar: Sidecar) -> None:
    term = await sidecar.lead()
    await sidecar.seen()
    await sidecar.client.flushall()
    assert not await sidecar.control.set_shares("m", term, shares())
    assert await sidecar.read("shares") == {}


async def test_what_is_set_is_what_the_next_leader_stands_on(client: redis.asyncio.Redis, sidecar: Sidecar) -> None:
    written = shares().standing
    await sidecar.control.set_shares("m", await sidecar.lead(), shares())
    read = (await Sidecar(client).seen()).standing
    assert (read.at_ms, read.wanted) == (written.at_ms, written.wanted)
    for name in ("debt", "asked", "served", "asked_rate", "served_rate"):
        assert getattr(read, name) == pytest.approx(getattr(written, name))


async def test_only_what_changed_is_sent(sidecar: Sidecar) -> None:
    term = await sidecar.lead()
    await sidecar.control.set_shares("m", term, shares())
    await sidecar.seen()
    before = (await sidecar.client.info("commandstats"))["cmdstat_hset"]["calls"]
    assert await sidecar.control.set_shares("m", term, shares())
    assert (await sidecar.client.info("commandstats"))["cmdstat_hset"]["calls"] == before


async def test_the_shares_of_who_is_no_longer_configured_are_dropped(
    client: redis.asyncio.Redis, sidecar: Sidecar
) -> None:
    await sidecar.control.set_shares("m", await sidecar.lead(), shares())
    fewer = Sidecar(client, Policy((MODEL,), POLICY.entitlements[:1]))
    await fewer.seen()
    assert await fewer.control.set_shares("m", await fewer.lead(), shares(count=1))
    assert {"at", "bob"}.isdisjoint(await fewer.read("shares"))


async def test_more_shares_than_one_call_of_lua_can_carry_are_set(client: redis.asyncio.Redis) -> None:
    names = [f"tenant-{number}" for number in range(5000)]
    many = tuple(entitlement(name, ServiceClass.ELASTIC, Vector(1, 1, 1)) for name in names)
    sidecar = Sidecar(client, Policy((MODEL,), many))
    assert await sidecar.control.set_shares("m", await sidecar.lead(), shares(count=5000))
    assert len(await sidecar.read("shares")) == 5000 + 4


async def test_desired_servers_are_those_of_the_last_tick(sidecar: Sidecar) -> None:
    assert await sidecar.control.desired("m") == {}
    await sidecar.control.set_shares("m", await sidecar.lead(), shares())
    assert await sidecar.control.desired("m") == {"short": 2, "long": 1}


async def test_every_key_expires(sidecar: Sidecar) -> None:
    await sidecar.control.set_shares("m", await sidecar.lead(), shares())
    for key in await sidecar.client.keys():
        assert 0 < await sidecar.client.pttl(key) <= KEY_DAYS_MS


async def test_nothing_yet_is_seen_as_nothing(sidecar: Sidecar) -> None:
    seen = await sidecar.seen()
    assert (seen.at_ms, seen.live, seen.standing.at_ms) == (sidecar.now, (1, 1), 0)
    assert not seen.in_use.any()
    assert not seen.unmet.any()
    assert not seen.asked.any()
    assert seen.standing.wanted == ((), ())


async def test_use_is_seen_by_entitlement_and_pool(sidecar: Sidecar) -> None:
    await sidecar.write(
        "uses", {"ada short": "500 2 0 0", "bob long": "7000 1 7000 1", "gone short": "9 9 0 0", "ada gone": "8 8 0 0"}
    )
    seen = await sidecar.seen()
    assert seen.in_use[0].tolist() == [[500, 2], [0, 0]]
    assert seen.in_use[2].tolist() == [[0, 0], [7000, 1]]
    assert seen.in_use.sum() == 7503


async def test_tokens_asked_and_served_are_the_end_of_an_entitlements_record(sidecar: Sidecar) -> None:
    await sidecar.write("entitlements", {"bob": "1 2 3 4 5 6 7 8 9 10 11 1200 1100"})
    seen = await sidecar.seen()
    assert seen.asked.tolist() == [0, 0, 1200]
    assert seen.served.tolist() == [0, 0, 1100]


async def test_who_is_new_since_the_last_tick_has_not_asked_since_it(sidecar: Sidecar) -> None:
    """Else all its history would count as the demand of one tick."""
    await sidecar.control.set_shares("m", await sidecar.lead(), shares())
    await sidecar.client.hdel("tp3:{m}:shares", "bob")
    await sidecar.write("entitlements", {"bob": "1 2 3 4 5 6 7 8 9 10 11 5000 4000"})
    seen = await sidecar.seen()
    assert (seen.asked[2], seen.standing.asked[2], seen.standing.served[2]) == (5000, 5000, 4000)


async def test_refused_requests_count_until_they_are_forgotten(sidecar: Sidecar) -> None:
    soon, past = sidecar.now + 1, sidecar.now
    await sidecar.write(
        "unmet",
        {
            "ada": f"f1:{soon}:short:100:120 f2:{past}:short:999:999 f3:{soon}:long:50:60 f4:{soon}:short:11:12",
            "gone": f"f1:{soon}:short:5:5",
            "bob": f"f1:{soon}:gone:7:7",
        },
    )
    seen = await sidecar.seen()
    assert seen.unmet[0].tolist() == [[111, 2], [50, 1]]
    assert seen.unmet.sum() == 164


async def test_waiting_requests_count_where_they_first_wish_to_go(sidecar: Sidecar) -> None:
    soon, past = sidecar.now + 1, sidecar.now
    await sidecar.write(
        "waiters",
        {
            "l1": f"bob long 400 500 {soon} 1 more of it",
            "l2": f"bob long 40 50 {soon} 1",
            "l3": f"bob long 4 5 {past} 1",
            "l4": f"gone long 4 5 {soon} 1",
        },
    )
    seen = await sidecar.seen()
    assert seen.unmet[2].tolist() == [[0, 0], [440, 2]]
    assert seen.unmet.sum() == 442


async def test_a_server_that_does_not_answer_is_told_apart() -> None:
    gone = connect("unix:///nowhere/at/all.sock")
    control = RedisControl(gone, POLICY, Silent())
    for call in (control.lead("m", "one", TERM_MS), control.seen("m", (1, 1)), control.desired("m")):
        with pytest.raises(LedgerUnavailable):
            await call
    await gone.aclose()


NUMBERS = st.integers(-(10**9), 10**12)
WHOLE = st.integers(0, 10**9)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_standing_is_read_as_it_was_written(data: st.DataObject) -> None:
    layout = Layout(MODEL, POLICY)

    def column(numbers: st.SearchStrategy[int], divisor: int = 1) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array(data.draw(st.lists(numbers, min_size=3, max_size=3)), dtype=np.float64) / divisor

    def table() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.stack([column(WHOLE) for _ in range(3)], axis=1)

    standing = Standing(
        at_ms=data.draw(WHOLE),
        debt=column(st.integers(-1_000_000, 1_000_000), 1_000_000),
        asked=column(NUMBERS),
        served=column(NUMBERS),
        asked_rate=column(NUMBERS, 1000),
        served_rate=column(NUMBERS, 1000),
        wanted=tuple(tuple(data.draw(st.lists(st.tuples(WHOLE, st.integers(0, 99)), max_size=4))) for _ in MODEL.pools),
    )
    pool = PoolShares(1, np.zeros(3), np.zeros(3), 1)
    texts = layout.texts(Shares(column(WHOLE), table(), table(), (pool, pool), standing))
    read = layout.seen(Texts({}, {}, {}, {}, texts), 1, (1, 1)).standing
    assert (read.at_ms, read.wanted) == (standing.at_ms, standing.wanted)
    for name in ("debt", "asked", "served", "asked_rate", "served_rate"):
        assert getattr(read, name) == pytest.approx(getattr(standing, name), abs=1e-9)
