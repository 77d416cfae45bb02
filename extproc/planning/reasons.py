"""Says in words whether splitting pays, and why."""

from __future__ import annotations

from collections.abc import Iterator

from extproc.planning.forms import Rates, closed_saving, whole_servers
from extproc.planning.plan import Plan, Split

NOTHING = 0.02  # a saving below this is none, as inputs are no better known
MUCH_LONG_WORK = 0.3
NOTICEABLY_BUSIER = 0.05


def verdict(plan: Plan) -> str:
    mixed, split = plan.mixed.servers, plan.split
    if plan.best is None or split is None:
        return "Do not split: no threshold has requests on both sides that could be served in time."
    at = f"at {plan.best.threshold:,} tokens"
    if plan.saving > 0:
        return f"Split {at}: {split.servers:,} servers instead of {mixed:,}, {plan.saving:.1%} fewer."
    against = "as many as one mixed pool" if split.servers == mixed else f"one mixed pool {mixed:,}"
    return f"Do not split: two pools need {split.servers:,} servers at the best threshold ({at}), {against}."


def reasons(plan: Plan) -> tuple[str, ...]:
    """Sentences, the weightiest first."""
    if plan.best is None:
        return ()
    return tuple(_why_it_pays(plan, plan.best) if plan.saving > 0 else _why_it_does_not(plan, plan.best))


def _why_it_pays(plan: Plan, best: Split) -> Iterator[str]:
    if best.closed_corrected >= NOTHING:
        yield (
            f"The work alone takes {best.closed_corrected:.1%} fewer: a server with no room set aside for long requests"
            " runs more short ones at a time."
        )
    else:
        yield f"The work itself takes as many servers as before ({-best.closed_corrected:+.1%})."
    if plan.saving - best.closed_corrected >= NOTHING:
        yield "Short requests no longer wait behind long prompts, so that servers may be busier within the target."


def _why_it_does_not(plan: Plan, best: Split) -> Iterator[str]:
    rates, saved = best.rates, best.closed_corrected * best.homogeneous.fluid_servers
    yield (
        f"One server does {rates.mixed:.3g} mixed requests/s, {rates.short:.3g} short or {rates.long:.3g} long ones:"
        f" rho is {rates.rho:.2f}, and the closed form, corrected for the long ones, saves {best.closed_corrected:.1%}."
    )
    if best.closed_corrected >= NOTHING and saved < 1:
        yield (
            f"At this rate that is {saved:.2f} of a server, less than it costs to round up the servers of two pools"
            " instead of one's."
        )
    yield from _why_long_ones_cost(best)
    if plan.pays_from is not None:
        yield f"From about {plan.pays_from:,.3g} requests/s on it would save servers."


def _why_long_ones_cost(best: Split) -> Iterator[str]:
    [mixed], [_, long] = best.homogeneous.pools, best.fleet.pools
    work = long.requests_per_second / long.one_does / best.fleet.fluid_servers
    if work > MUCH_LONG_WORK:
        yield f"Too much is long: {1 - best.short_share:.1%} of the requests are {work:.0%} of the work."
    if long.servers > 1 and mixed.load.utilisation - long.load.utilisation > NOTICEABLY_BUSIER:
        yield (
            f"Long requests among themselves wait for one another: within the target their servers can be"
            f" {long.load.utilisation:.0%} busy, mixed ones {mixed.load.utilisation:.0%}."
        )


def of_rates(requests_per_second: float, short_share: float, rates: Rates) -> str:
    """The verdict where nothing is known but what servers do."""
    count = whole_servers(requests_per_second, short_share, rates)
    what = f"{count.short:,} + {count.long:,} servers instead of {count.homogeneous:,}"
    if count.split < count.homogeneous:
        return f"Split: {what}, {count.saving:.1%} fewer."
    if closed_saving(short_share, rates) <= 0:
        why = "short servers are not so much faster as to make up for the long ones"
    else:
        why = "at this rate less than a server would be saved, and both pools are rounded up to whole servers"
    return f"Do not split: {what}, because {why}."
