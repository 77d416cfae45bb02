"""A plan in tables, as JSON, and as the part of tokenpool.yaml that it recommends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from extproc.planning.forms import Count, Rates, closed_saving, whole_servers
from extproc.planning.plan import Plan, Simulated, Split, Trial, Variant
from extproc.planning.reasons import of_rates, reasons, verdict
from extproc.planning.sizing import Fleet, Pool

Json = dict[str, Any]

HOURS_A_YEAR = 8760
NAMES = {1: ("default",), 2: ("short", "long"), 3: ("short", "middle", "long")}
UNREACHABLE = "out of reach"
LIMITS = {"sequences": "sequences", "kv_tokens": "KV tokens", "step_tokens": "tokens a step"}


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: Sequence[str]  # those that begin with ">" are aligned to the right
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Prices:
    gpus_per_server: int
    dollars_per_gpu_hour: float

    def gpu_hours(self, servers: float) -> float:
        return servers * self.gpus_per_server * HOURS_A_YEAR

    def dollars(self, servers: float) -> float:
        return self.gpu_hours(servers) * self.dollars_per_gpu_hour


def tables(plan: Plan, prices: Prices) -> list[Table]:
    found = [_pools(plan)]
    if plan.best is not None:
        found.append(_forms(plan, plan.best))
        if plan.simulated is not None:
            found.append(_simulated(plan, plan.simulated))
        found += [_money(plan, prices), _sensitivity(plan.best, plan.variants)]
    return found


def names(fleet: Fleet) -> tuple[str, ...]:
    return NAMES[len(fleet.pools)]


def _pools(plan: Plan) -> Table:
    fleets = [("mixed", plan.homogeneous)]
    if plan.best is not None:
        fleets.append(("", plan.best.fleet))
    rows = [
        _pool_row(label or name, pool, plan.need.requests_per_second)
        for label, fleet in fleets
        for name, pool in zip(names(fleet), fleet.pools, strict=True)
    ]
    return Table(
        f"Servers for {plan.need.requests_per_second:,.4g} requests/s, P99 TTFT {plan.need.ttft_p99_ms:,.0f} ms",
        (
            "pool",
            ">tokens up to",
            ">requests",
            ">one does/s",
            "limited by",
            ">sequences",
            ">servers",
            ">busy",
            ">P99 TTFT ms",
        ),
        rows,
    )


def _pool_row(name: str, pool: Pool, rate: float) -> tuple[str, ...]:
    return (
        name,
        f"{pool.high:,}",
        f"{pool.requests_per_second / rate:.2%}",
        f"{pool.one_does:.2f}",
        LIMITS[pool.work.limit],
        f"{pool.work.sequences:,.0f}",
        f"{pool.servers:,}",
        f"{pool.load.utilisation:.0%}",
        f"{pool.load.ttft_p99_ms:,.0f}",
    )


def _forms(plan: Plan, best: Split) -> Table:
    rate = plan.need.requests_per_second
    bare, corrected = (best.whole(rate, corrected=one) for one in (False, True))
    three = plan.three
    rows = [
        ("closed form", "", "", f"{best.closed_uncorrected:.1%}", f"{best.closed_corrected:.1%}"),
        (
            "whole servers",
            f"{corrected.homogeneous:,}",
            f"{bare.split:,}; {corrected.split:,}",
            f"{bare.saving:.1%}",
            f"{corrected.saving:.1%}",
        ),
        ("for the target", f"{best.homogeneous.servers:,}", f"{best.fleet.servers:,}", "", f"{best.saving:.1%}"),
    ]
    if three is not None:
        saving = 1 - three.servers / best.homogeneous.servers
        at = " and ".join(f"{one:,}" for one in three.thresholds)
        rows.append(
            (f"three pools, at {at}", f"{best.homogeneous.servers:,}", f"{three.servers:,}", "", f"{saving:.1%}")
        )
    title = (
        f"Savings of a split at {best.threshold:,} tokens: short share {best.short_share:.2%}, rho {best.rates.rho:.2f}"
    )
    return Table(title, ("", ">mixed", ">split", ">long as fast as mixed", ">corrected"), rows)


def _simulated(plan: Plan, simulated: Simulated) -> Table:
    trials = [("mixed", simulated.mixed)] + ([("split", simulated.split)] if simulated.split else [])
    rows = [
        (name, _counts(one.planned), f"{one.planned_late:.2%}", UNREACHABLE if one.kept is None else _counts(one.kept))
        for name, one in trials
    ]
    title = f"In the simulator, {simulated.requests:,} requests: split saves {plan.saving:.1%}"
    late = f">later than {plan.need.ttft_p99_ms:,.0f} ms"
    return Table(title, ("", ">servers planned", late, ">servers that keep the target"), rows)


def _counts(servers: Sequence[int]) -> str:
    return " + ".join(f"{one:,}" for one in servers)


def _money(plan: Plan, prices: Prices) -> Table:
    def row(name: str, servers: float) -> tuple[str, ...]:
        return (name, f"{servers:,.0f}", f"{prices.gpu_hours(servers):,.0f}", f"{prices.dollars(servers):,.0f}")

    mixed, split = plan.mixed.servers, plan.split.servers if plan.split else plan.mixed.servers
    return Table(
        "A year",
        (
            "",
            ">servers",
            f">GPU-hours, {prices.gpus_per_server} a server",
            f">dollars, {prices.dollars_per_gpu_hour:,.2f} a GPU-hour",
        ),
        [row("mixed", mixed), row("split", split), row("saved", mixed - split)],
    )


def _sensitivity(best: Split, variants: Sequence[Variant]) -> Table:
    base = Variant("as planned", best.homogeneous.servers, best.fleet.servers)
    rows = [(one.change, _count(one.homogeneous), _count(one.split), _saving(one)) for one in (base, *variants)]
    return Table(f"Sensitivity, at {best.threshold:,} tokens", ("", ">mixed", ">split", ">saving"), rows)


def _count(servers: int | None) -> str:
    return UNREACHABLE if servers is None else f"{servers:,}"


def _saving(one: Variant) -> str:
    return "" if one.homogeneous is None or one.split is None else f"{1 - one.split / one.homogeneous:.1%}"


def configuration(plan: Plan) -> str:
    """The `pools:` of a model, with the capacity of one server at the load at which the target still holds."""
    fleet = plan.recommended
    lines = ["pools:"]
    for name, pool in zip(names(fleet), fleet.pools, strict=True):
        lines += _pool_lines(name, pool)
    if len(fleet.pools) > 1:
        lines.append(f"routing: {{threshold_tokens: {fleet.pools[0].high}}}")
    return "\n".join(lines)


def _pool_lines(name: str, pool: Pool) -> Iterator[str]:
    server = pool.work.server
    tokens = math.floor(pool.requests_per_second / pool.servers * pool.tokens_per_request)
    capacity = f"tokens_per_second: {max(1, tokens)}, kv_tokens: {server.kv_tokens}"
    yield f"  {name}:"
    yield f"    endpoints: [http://{name}-1:8000]     # all {pool.servers:,} servers, one after another"
    yield f"    max_model_len: {pool.high}"
    yield f"    capacity: {{{capacity}, concurrency: {pool.work.allowed_sequences}}}"


def as_json(plan: Plan, prices: Prices) -> Json:
    best = plan.best
    return {
        "source": plan.need.lengths.source,
        "requests_per_second": plan.need.requests_per_second,
        "ttft_p99_ms": plan.need.ttft_p99_ms,
        "split": plan.saving > 0,
        "saving": plan.saving,
        "verdict": verdict(plan),
        "reasons": reasons(plan),
        "mixed": fleet_json(plan.homogeneous, prices),
        "best": None if best is None else _split_json(plan, best, prices),
        "simulated": None if plan.simulated is None else _simulated_json(plan.simulated),
        "three_pools": None if plan.three is None else fleet_json(plan.three, prices),
        "thresholds": [_threshold_json(one) for one in plan.splits],
        "sensitivity": [{"change": v.change, "mixed": v.homogeneous, "split": v.split} for v in plan.variants],
        "configuration": configuration(plan),
    }


def fleet_json(fleet: Fleet, prices: Prices) -> Json:
    return {
        "servers": fleet.servers,
        "thresholds": fleet.thresholds,
        "gpu_hours_a_year": prices.gpu_hours(fleet.servers),
        "dollars_a_year": prices.dollars(fleet.servers),
        "pools": {name: _pool_json(pool) for name, pool in zip(names(fleet), fleet.pools, strict=True)},
    }


def _pool_json(pool: Pool) -> Json:
    return {
        "max_model_len": pool.high,
        "servers": pool.servers,
        "share": pool.share,
        "requests_per_second": pool.requests_per_second,
        "one_server_does_per_second": pool.one_does,
        "limited_by": pool.work.limit,
        "sequences": pool.work.sequences,
        "utilisation": pool.load.utilisation,
        "ttft_p99_ms": pool.load.ttft_p99_ms,
    }


def _split_json(plan: Plan, best: Split, prices: Prices) -> Json:
    rate = plan.need.requests_per_second
    return {
        **fleet_json(best.fleet, prices),
        "threshold": best.threshold,
        "short_share": best.short_share,
        "rho": best.rates.rho,
        "saving": best.saving,
        "closed_form": {"uncorrected": best.closed_uncorrected, "corrected": best.closed_corrected},
        "whole_servers": {
            "uncorrected": _count_json(best.whole(rate, corrected=False)),
            "corrected": _count_json(best.whole(rate, corrected=True)),
        },
    }


def _simulated_json(simulated: Simulated) -> Json:
    return {
        "requests": simulated.requests,
        "mixed": _trial_json(simulated.mixed),
        "split": None if simulated.split is None else _trial_json(simulated.split),
    }


def _trial_json(trial: Trial) -> Json:
    return {"planned": trial.planned, "planned_late": trial.planned_late, "keep_the_target": trial.kept}


def _threshold_json(one: Split) -> Json:
    return {
        "threshold": one.threshold,
        "short_share": one.short_share,
        "servers": [pool.servers for pool in one.fleet.pools],
        "saving": one.saving,
        "closed_uncorrected": one.closed_uncorrected,
        "closed_corrected": one.closed_corrected,
    }


RATE_FACTORS = (0.5, 1.0, 2.0)
RHO_FACTORS = (0.8, 1.2)


def forms_tables(rate: float, short_share: float, rates: Rates) -> list[Table]:
    """Where nothing is known but what servers do."""
    bare, corrected = (whole_servers(rate, short_share, one) for one in (rates.uncorrected, rates))
    found = [
        ("closed form", "", "", *(f"{closed_saving(short_share, one):.1%}" for one in (rates.uncorrected, rates))),
        (
            "whole servers",
            f"{bare.homogeneous:,}",
            f"{bare.split:,}; {corrected.split:,}",
            f"{bare.saving:.1%}",
            f"{corrected.saving:.1%}",
        ),
    ]
    title = f"Savings at {rate:,.4g} requests/s: short share {short_share:.2%}, rho {rates.rho:.2f}"
    sensitivity = [_forms_row(*one, short_share) for one in _forms_changes(rate, rates)]
    return [
        Table(title, ("", ">mixed", ">split", ">long as fast as mixed", ">corrected"), found),
        Table("Sensitivity, whole servers, corrected", ("", ">mixed", ">short", ">long", ">saving"), sensitivity),
    ]


def _forms_changes(rate: float, rates: Rates) -> Iterator[tuple[str, float, Rates]]:
    for factor in RATE_FACTORS:
        yield f"rate x {factor:g}", rate * factor, rates
    for factor in RHO_FACTORS:
        yield f"rho {factor - 1:+.0%}", rate, Rates(rates.mixed, rates.short * factor, rates.long)
    for factor in RHO_FACTORS:
        yield f"long servers {factor - 1:+.0%}", rate, Rates(rates.mixed, rates.short, rates.long * factor)


def _forms_row(change: str, rate: float, rates: Rates, short_share: float) -> tuple[str, ...]:
    one = whole_servers(rate, short_share, rates)
    return (change, f"{one.homogeneous:,}", f"{one.short:,}", f"{one.long:,}", f"{one.saving:.1%}")


def forms_json(rate: float, short_share: float, rates: Rates) -> Json:
    return {
        "requests_per_second": rate,
        "short_share": short_share,
        "rho": rates.rho,
        "split": whole_servers(rate, short_share, rates).saving > 0,
        "verdict": of_rates(rate, short_share, rates),
        "closed_form": {
            "uncorrected": closed_saving(short_share, rates.uncorrected),
            "corrected": closed_saving(short_share, rates),
        },
        "whole_servers": {
            "uncorrected": _count_json(whole_servers(rate, short_share, rates.uncorrected)),
            "corrected": _count_json(whole_servers(rate, short_share, rates)),
        },
    }


def _count_json(one: Count) -> Json:
    return {"mixed": one.homogeneous, "short": one.short, "long": one.long, "saving": one.saving}
