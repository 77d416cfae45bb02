"""Ticks one after another: debts, weights and shares in a closed loop; what a tick costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from extproc.core.policy import Entitlement, Model, Pool, ServiceClass, Sharing, Vector
from extproc.core.seen import Seen, Standing
from extproc.core.terms import Terms, terms
from extproc.core.tick import tick
from tests.core.closed_loop import ClosedLoop, longest_gaps, nothing_before

HALF = Vector(120, 8_000, 8)  # the paper's server is two of these: 16 slots, 240 tokens/s
MODEL = Model("m", (Pool("p", ("http://a", "http://b"), 8192, HALF),))
BASE = Vector(75, 5_000, 5)
COPILOT, SYNTH, ANALYTICS = range(3)
FAILS, RECOVERS, JOINS, ENDS = 60, 120, 240, 330
NOW = 1_000_000


def elastic(name: str, slo_ms: int | None = None, base: Vector = BASE, caps: Vector | None = None) -> Entitlement:
    wide = Vector(2 * base.tokens_per_second, 2 * base.kv_tokens, 2 * base.concurrency)
    return Entitlement(name, "m", ServiceClass.ELASTIC, base=base, caps=caps or wide, slo_ttft_ms=slo_ms)


TENANTS = (elastic("copilot", 500), elastic("synth", 30_000), elastic("analytics"))


def fair_share(hold: int) -> ClosedLoop:
    """The paper's second experiment: half the capacity fails for a minute; later a third tenant joins."""
    return ClosedLoop(
        MODEL,
        TENANTS,
        wanting=lambda who, now: 5 if who != ANALYTICS or now >= JOINS else 0,
        live=lambda now: 1 if FAILS <= now < RECOVERS else 2,
        hold=(hold,),
        tokens=(15 * hold,),
    )


@pytest.fixture(scope="module", params=[1, 5, 20], ids="requests of {} s".format)
def failure(request: pytest.FixtureRequest) -> ClosedLoop:
    loop = fair_share(request.param)
    loop.run(ENDS)
    return loop


def test_the_tight_slo_keeps_nearly_all_it_wants_while_capacity_is_halved(failure: ClosedLoop) -> None:
    held = np.array(failure.held)[FAILS:RECOVERS].mean(axis=0)
    assert held[COPILOT] >= 0.9 * 5
    assert held[COPILOT] + held[SYNTH] == pytest.approx(8)


def test_the_debt_of_the_loose_slo_rises_and_its_share_follows(failure: ClosedLoop) -> None:
    debts = [shares.standing.debt[SYNTH] for shares in failure.shares[FAILS:RECOVERS]]
    assert debts[-1] > 0.15
    shares = np.array([shares.share[SYNTH, 2] for shares in failure.shares[FAILS:RECOVERS]])
    assert shares[:10].max() == 3
    assert shares[10:].max() == 4


def test_after_recovery_debts_vanish_and_shares_are_the_bases(failure: ClosedLoop) -> None:
    for shares in failure.shares[JOINS - 20 : JOINS]:
        assert np.abs(shares.standing.debt).max() < 0.05
        assert shares.share[:2, 2].tolist() == [5, 5]


def test_who_joins_gets_his_base(failure: ClosedLoop) -> None:
    assert np.array(failure.held)[JOINS + 25 :].min() == 5
    assert np.abs(failure.shares[-1].standing.debt).max() < 0.05


def everybody_wants(count: int) -> Callable[[int, int], int]:
    return lambda _who, _now: count


@pytest.mark.parametrize("hold", [1, 8], ids="requests of {} s".format)
@pytest.mark.parametrize(
    ("tenants", "base_slots", "wanted", "slos", "kv"),
    [
        pytest.param(3, 5, 5, (None,), (100,), id="few"),
        pytest.param(100, 1, 3, (None,), (100,), id="many"),
        pytest.param(100, 1, 3, (100, 30_000), (100,), id="tight and loose"),
        pytest.param(40, 5, 8, (100, 30_000), (100,), id="tight and loose with large bases"),
        pytest.param(30, 2, 6, (None,), (50, 50, 50, 50, 900), id="small requests and large ones"),
    ],
)
def test_with_a_backlog_everybody_is_served_within_the_bound(
    hold: int, tenants: int, base_slots: int, wanted: int, slos: tuple[int | None, ...], kv: tuple[int, ...]
) -> None:
    slots = 16
    base = Vector(100_000, 100 * base_slots, base_slots)
    model = Model("m", (Pool("p", ("http://a",), 8192, Vector(10**6, 100 * slots, slots)),))
    parts = [elastic(f"e{i}", slos[i % len(slos)], base, Vector(10**6, 1600, slots)) for i in range(tenants)]
    loop = ClosedLoop(model, parts, everybody_wants(wanted), hold=(hold,), tokens=kv)
    loop.run(200)
    gaps = longest_gaps(loop)
    # The documented bound (debt.waited), with a demand of the whole base.
    tau = model.sharing.debt_seconds
    bound = tau * (1 + math.log(2 * base_slots / (1 - math.exp(-hold / tau)))) + hold * (tenants / slots + 2)
    assert gaps.max() <= bound
    busy = np.array(loop.held).sum(axis=1)
    assert len(kv) > 1 or (busy == min(slots, tenants * wanted)).all()


def test_equals_are_served_equally() -> None:
    parts = [elastic(f"e{i}", None, Vector(1000, 100, 1), Vector(10**6, 1600, 16)) for i in range(50)]
    model = Model("m", (Pool("p", ("http://a",), 8192, Vector(10**6, 1600, 16)),))
    loop = ClosedLoop(model, parts, everybody_wants(3), hold=(4,), tokens=(100,))
    loop.run(400)
    served = np.array(loop.held).mean(axis=0)
    assert served == pytest.approx(np.full(50, 16 / 50), rel=0.15)


def test_a_small_request_now_and_then_is_served_beside_floods() -> None:
    """Every 20 s one request that waits until it is served: a share of one follows within a tick."""
    done: list[int] = []

    def wanting(who: int, now: int) -> int:
        if who:
            return 40
        held = bool(loop.slots()[0])
        if held and (not done or now - done[-1] > 10):
            done.append(now)
        return 1 if now % 20 < 10 else 0

    loop = ClosedLoop(MODEL, TENANTS, wanting, hold=(4,), tokens=(60,))
    loop.run(200)
    assert len(done) == 10
    assert all(now % 20 <= 6 for now in done)


def seen_once(standing: Standing, in_use: float, unmet: float, asked: float, served: float, at_ms: int) -> Seen:
    column = np.array([[[in_use * 1000, in_use]]]), np.array([[[unmet * 1000, unmet]]])
    return Seen(at_ms, *column, np.array([asked]), np.array([served]), standing, (1,))


@pytest.mark.parametrize(
    ("in_use", "unmet", "asked"),
    [pytest.param(5, 10_000, 1e6, id="much above the base"), pytest.param(2, 0, 30, id="below it, all of it served")],
)
def test_who_has_his_base_or_all_he_asks_for_earns_no_debt(in_use: int, unmet: int, asked: float) -> None:
    of, standing = terms(MODEL, TENANTS[:1]), nothing_before(1)
    for second in range(1, 60):
        now = seen_once(standing, in_use, unmet, asked * second, 15 * in_use * second, NOW + 1000 * second)
        standing = tick(of, now).standing
    assert standing.debt[0] <= 1e-9


def test_the_first_tick_finds_no_rate_in_old_counters() -> None:
    shares = tick(terms(MODEL, TENANTS[:1]), seen_once(nothing_before(1), 1, 0, 1e9, 1e9, NOW))
    assert (shares.standing.asked_rate[0], shares.standing.debt[0]) == (0, 0)


def test_a_clock_that_went_back_changes_no_debt() -> None:
    before = replace(nothing_before(1), at_ms=NOW + 5000, debt=np.array([0.5]), asked_rate=np.array([50.0]))
    shares = tick(terms(MODEL, TENANTS[:1]), seen_once(before, 0, 5, 1e9, 0, NOW))
    assert (shares.standing.debt[0], shares.standing.asked_rate[0], shares.standing.at_ms) == (0.5, 50.0, NOW)


def test_a_weight_knows_no_scale_of_the_base() -> None:
    def weight(scale: int) -> float:
        base = Vector(75 * scale, 5_000 * scale, 5 * scale)
        rates = np.array([150.0 * scale])
        before = replace(nothing_before(1), debt=np.array([0.3]), asked_rate=rates, served_rate=rates)
        return float(tick(terms(MODEL, [elastic("e", 500, base)]), seen_once(before, 0, 0, 0, 0, NOW)).weight[0])

    assert weight(1) == pytest.approx(weight(100))


def test_a_weight_is_of_urgency_recent_use_and_debt() -> None:
    before = replace(nothing_before(1), debt=np.array([1.0]), served_rate=np.array([150.0]))
    weight = tick(terms(MODEL, TENANTS[:1]), seen_once(before, 0, 0, 0, 0, NOW)).weight[0]
    assert weight == pytest.approx(4 * 2**0.25 / 2 * 8)


def test_time_constants_follow_the_setting() -> None:
    """A scenario runs ten times as fast where ticks, holds and the time constant are a tenth."""
    slow = fair_share(5)
    fast = replace(
        fair_share(5),
        model=replace(MODEL, sharing=Sharing(debt_seconds=3.0)),
        tick_ms=100,
        entitlements=[_faster(one) for one in TENANTS],
    )
    fast = replace(
        fast, model=replace(fast.model, pools=(replace(fast.model.pools[0], server_capacity=_tenfold(HALF)),))
    )
    slow.run(110)
    fast.run(110)
    assert fast.shares[-1].standing.debt == pytest.approx(slow.shares[-1].standing.debt, abs=0.02)


def _tenfold(vector: Vector) -> Vector:
    return replace(vector, tokens_per_second=10 * vector.tokens_per_second)


def _faster(one: Entitlement) -> Entitlement:
    return replace(one, base=_tenfold(one.base), caps=_tenfold(one.caps))


@pytest.mark.parametrize(
    ("unmet", "live", "desired"),
    [
        pytest.param(0, 2, 2, id="begins with those that run"),
        pytest.param(10, 2, 4, id="more at once"),
        pytest.param(0, 0, 0, id="nothing in demand"),
    ],
)
def test_servers_that_a_pool_should_have(unmet: int, live: int, desired: int) -> None:
    """Four bases of five slots, each wanting as many again at most: 25 slots at 80 % of eight each."""
    parts = [elastic(f"e{i}") for i in range(2)]
    none = np.zeros(2)
    now = Seen(
        at_ms=NOW,
        in_use=np.zeros((2, 1, 2)),
        unmet=np.full((2, 1, 2), [unmet * 100.0, unmet]),
        asked=none,
        served=none,
        standing=nothing_before(2),
        live=(live,),
    )
    assert tick(terms(MODEL, parts), now).pools[0].desired == desired


def crowd(entitlements: int) -> tuple[Terms, Seen]:
    """Two pools, every class, everybody active and short of what he wants."""
    random = np.random.default_rng(1)
    pools = (
        Pool("short", ("http://a",) * 60, 8192, Vector(2400, 262_144, 64)),
        Pool("long", ("http://b",) * 30, 65_536, Vector(900, 524_288, 16)),
    )
    classes = [ServiceClass.ELASTIC] * 6 + [ServiceClass.GUARANTEED, ServiceClass.DEDICATED, *ServiceClass][:4]
    parts = []
    for number in range(entitlements):
        service_class = classes[number % len(classes)]
        base = Vector(2, 100, 0) if service_class.promised else Vector(2, 200, 1)
        if service_class.surplus:
            base = Vector()
        slo = int(random.integers(100, 50_000))
        parts.append(Entitlement(f"e{number}", "m", service_class, base, Vector(200, 20_000, 20), slo_ttft_ms=slo))
    held, unmet = random.integers(0, 2, (entitlements, 2)), random.integers(0, 4, (entitlements, 2))
    kv = random.integers(50, 1000, (entitlements, 2))
    before = replace(
        nothing_before(entitlements, 2),
        at_ms=NOW,
        debt=random.uniform(-1, 1, entitlements),
        asked_rate=random.uniform(0, 50, entitlements),
        served_rate=random.uniform(0, 50, entitlements),
    )
    now = Seen(
        at_ms=NOW + 1000,
        in_use=np.stack((held * kv, held), axis=-1).astype(np.float64),
        unmet=np.stack((unmet * kv, unmet), axis=-1).astype(np.float64),
        asked=random.uniform(0, 100, entitlements),
        served=random.uniform(0, 50, entitlements),
        standing=before,
        live=(40, 20),
    )
    return terms(Model("m", pools), parts), now


def cpu_seconds(entitlements: int) -> float:
    of, now = crowd(entitlements)
    best = math.inf
    for _ in range(7):
        start = time.process_time()
        tick(of, now)
        best = min(best, time.process_time() - start)
    return best


def test_a_tick_of_ten_thousand_entitlements_is_cheap() -> None:
    few, many = cpu_seconds(1_000), cpu_seconds(10_000)
    assert many <= 20 * few
    assert many < 0.1  # the time that reading, a tick and writing may take together; 22 ms when this was written
