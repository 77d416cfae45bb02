"""How one pool is divided: promises are set aside, elastic claims share what is left, spot and preemptible the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extproc.core.filling import Precedence, dominant, fill, whole
from extproc.core.seen import Column
from extproc.core.terms import Mask, Terms


@dataclass(frozen=True, slots=True)
class Division:
    """One pool, divided. Units in the last axis: tokens/s, KV tokens, requests; the last two are whole numbers."""

    given: Column  # (entitlements, 3) to elastic, spot and preemptible; to promised classes what is above their base
    unclaimed: Column  # (3,) what neither a promise nor such a share takes; surplus shares may stand in it
    unclaimed_surplus: Column  # (3,) the same beside surplus shares, with what is lent to spot
    unclaimed_lent: Column  # (3,) the same with what is lent to preemptible


@dataclass(frozen=True, slots=True)
class Claims:
    """What is wanted of the pool, and who goes first. (entitlements, 3), units as above."""

    inside: Column  # the base
    above: Column
    precedence: Precedence


def divide(terms: Terms, capacity: Column, headroom: Column, claims: Claims) -> Division:
    """Lexicographic: elastic up to the base; elastic and promised up to their bursts; spot and preemptible.

    Within each step weighted max-min by dominant share, so that no more can be given to anybody without taking from
    one who has no more. Every promised base stands in every pool, used or not, as it does at admission; what guaranteed
    ones leave unused is lent to spot and preemptible only.
    """
    promises = terms.promises
    room = np.maximum(0.0, capacity - promises)
    given = _claimed(terms, capacity, room, claims)
    unclaimed = room - given.sum(axis=0)

    used = np.minimum(claims.inside[terms.guaranteed].sum(axis=0), promises)
    idle = np.maximum(0.0, terms.base[terms.guaranteed].sum(axis=0) - used)
    short = np.maximum(0.0, promises - capacity)  # of promises that the live servers cannot honour nothing is lent
    lent = np.floor(np.maximum(0.0, idle - headroom - short))
    to_spot = unclaimed + lent if terms.sharing.lend_to_spot else unclaimed
    surplus = _surplus(capacity, to_spot, terms.surplus, claims)
    if not terms.sharing.lend_to_spot:
        left = unclaimed + lent - surplus.sum(axis=0)
        surplus += _surplus(capacity, left, terms.preemptible, _rest(claims, surplus))
    taken = surplus.sum(axis=0)
    return Division(
        given=given + surplus,
        unclaimed=unclaimed,
        unclaimed_surplus=np.maximum(0.0, to_spot - taken),
        unclaimed_lent=np.maximum(0.0, unclaimed + lent - taken),
    )


def _claimed(terms: Terms, capacity: Column, room: Column, claims: Claims) -> Column:
    """Shares of elastic entitlements, and of promised ones above their base."""
    weight = claims.precedence.weight
    base = _filled(terms.elastic, claims.inside, np.zeros(len(weight)), (weight, capacity, room))
    satisfied = (base >= claims.inside * (1 - 1e-9)).all(axis=1)
    held = dominant(base, capacity)
    left = room - base.sum(axis=0)
    beyond = _filled(terms.promised | (terms.elastic & satisfied), claims.above, held, (weight, capacity, left))
    return _rounded(base + beyond, claims, room)


def _surplus(capacity: Column, room: Column, who: Mask, claims: Claims) -> Column:
    weight = claims.precedence.weight
    wanted = claims.inside + claims.above
    return _rounded(_filled(who, wanted, np.zeros(len(weight)), (weight, capacity, room)), claims, room)


def _rest(claims: Claims, given: Column) -> Claims:
    wanted = claims.inside + claims.above
    return Claims(np.zeros_like(wanted), np.maximum(0.0, wanted - given), claims.precedence)


def _filled(who: Mask, wanted: Column, held: Column, scale: tuple[Column, Column, Column]) -> Column:
    """What each gets (entitlements, 3) of what it wants. Scale: weight, capacity, room."""
    weight, capacity, room = scale
    rows = np.flatnonzero(who & (wanted > 0).any(axis=1))
    given = np.zeros_like(wanted)
    given[rows] = wanted[rows] * fill(wanted[rows], weight[rows], held[rows], capacity, room)[:, np.newaxis]
    return given


def _rounded(given: Column, claims: Claims, room: Column) -> Column:
    """The same with whole requests, each with the KV tokens that one of its tenant's takes on average.

    What is held and what waits are averaged together. Where those that wait are larger, a share of one request more
    than is held has room for one of them: k a + b <= (k + 1) (k a + u b) / (k + u) for b >= a and u >= 1.
    """
    rows = np.flatnonzero(given[:, 2] > 0)
    wanted = claims.inside[rows] + claims.above[rows]
    kv_each = np.divide(wanted[:, 1], wanted[:, 2], out=np.zeros(len(rows)), where=wanted[:, 2] > 0)
    precedence = claims.precedence
    of_rows = Precedence(precedence.waited[rows], precedence.weight[rows], precedence.lot[rows])
    result = np.zeros_like(given)
    result[:, 0] = given[:, 0]
    result[rows, 1:] = whole(given[rows, 2], kv_each, np.floor(room[1:]), of_rows)
    return result
