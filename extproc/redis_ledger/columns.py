"""The records that the controller reads and writes, as text and as columns; pure.

Thousands of them are read and written in a tick: numbers are parsed and printed all at once, not record by record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from extproc.core.policy import Model, Policy
from extproc.core.seen import Column, PoolShares, Seen, Shares, Standing

# Fields of the shares that belong to no entitlement have a space in them: no entitlement's name has one.
AT = "tick at"  # ms
HISTORY = "history "  # then the pool
POOL = "pool "  # then the pool

MILLI, MICRO = 1_000, 1_000_000
_ALMOST = 1e-6  # what a whole number may lose in the arithmetic of a tick
_USE_WIDTH = 4
_RECORD_WIDTH = 13  # of an entitlement's own record; at its end: tokens asked for, tokens served
_UNMET_PARTS = 5
_SHARES_WIDTH = 12  # of what is set for one; at its end: debt, asked, served, and the two rates


@dataclass(frozen=True, slots=True)
class Texts:
    """One model's hashes, read at one instant."""

    entitlements: Mapping[str, str]
    uses: Mapping[str, str]  # by "ENTITLEMENT POOL": KV tokens and slots that leases hold, and two numbers more
    unmet: Mapping[str, str]  # by entitlement: FINGERPRINT:EXPIRES_MS:POOL:KV:TOKENS, several
    waiters: Mapping[str, str]  # by lease: ENTITLEMENT POOL KV TOKENS DEADLINE_MS ...
    shares: Mapping[str, str]  # what the last tick set


class Layout:
    """Where the entitlements and pools of a model stand in the columns."""

    def __init__(self, model: Model, policy: Policy) -> None:
        self.names = tuple(entitlement.name for entitlement in policy.entitlements_of(model.name))
        self.pools = tuple(pool.name for pool in model.pools)
        self.rows = {name: row for row, name in enumerate(self.names)}
        self._pool_numbers = {name: number for number, name in enumerate(self.pools)}
        pairs = ((name, pool) for name in self.names for pool in self.pools)
        self._cells = {f"{name} {pool}": cell for cell, (name, pool) in enumerate(pairs)}

    def seen(self, texts: Texts, at_ms: int, live: tuple[int, ...]) -> Seen:
        asked, served = self._table(texts.entitlements, _RECORD_WIDTH)[:, -2:].T
        return Seen(
            at_ms=at_ms,
            in_use=self._in_use(texts.uses),
            unmet=self._refused(texts.unmet, at_ms) + self._waiting(texts.waiters, at_ms),
            asked=asked,
            served=served,
            standing=self._standing(texts.shares, asked, served),
            live=live,
        )

    def texts(self, shares: Shares) -> dict[str, str]:
        """The records of all shares, by field."""
        standing, pools = shares.standing, zip(self.pools, shares.pools, shares.standing.wanted, strict=True)
        columns = (
            np.maximum(1, np.rint(shares.weight * MILLI)),
            np.floor(shares.cap + _ALMOST),
            np.floor(shares.share + _ALMOST),
            np.rint(standing.debt * MICRO),
            np.rint(standing.asked),
            np.rint(standing.served),
            np.rint(standing.asked_rate * MILLI),
            np.rint(standing.served_rate * MILLI),
        )
        records = dict(zip(self.names, _printed(np.column_stack(columns)), strict=True))
        records[AT] = str(standing.at_ms)
        for name, pool, wanted in pools:
            records[POOL + name] = _pool_record(pool)
            if wanted:
                records[HISTORY + name] = " ".join(f"{ms}:{servers}" for ms, servers in wanted)
        return records

    def _in_use(self, uses: Mapping[str, str]) -> Column:
        cells = [self._cells.get(key, -1) for key in uses]
        return self._summed(cells, _numbers(uses.values()).reshape(-1, _USE_WIDTH)[:, :2])

    def _refused(self, unmet: Mapping[str, str], at_ms: int) -> Column:
        """Entries that have run out are still there until somebody writes to their record."""
        rows = np.array([self.rows.get(name, -1) for name in unmet], dtype=np.int64)
        entries = [text.count(":") // (_UNMET_PARTS - 1) for text in unmet.values()]
        of_rows = np.repeat(rows, np.array(entries, dtype=np.int64))
        parts = " ".join(unmet.values()).replace(" ", ":").split(":") if len(of_rows) else []
        _, expires_ms, names, kv, _ = (parts[part::_UNMET_PARTS] for part in range(_UNMET_PARTS))
        pools = np.array([self._pool_numbers.get(name, -1) for name in names], dtype=np.int64)
        counted = (_numbers(expires_ms) > at_ms) & (pools >= 0) & (of_rows >= 0)
        cells = np.where(counted, of_rows * len(self.pools) + pools, -1)
        return self._summed(cells, np.column_stack((_numbers(kv), np.ones(len(cells)))))

    def _waiting(self, waiters: Mapping[str, str], at_ms: int) -> Column:
        cells, wanted = [], []
        for text in waiters.values():
            name, pool, kv, _tokens, deadline_ms, *_ = text.split(" ", 5)
            if int(deadline_ms) > at_ms:
                cells.append(self._cells.get(f"{name} {pool}", -1))
                wanted.append((int(kv), 1))
        return self._summed(cells, np.array(wanted, dtype=np.float64).reshape(-1, 2))

    def _summed(self, cells: Sequence[int] | NDArray[np.int64], amounts: Column) -> Column:
        """Amounts (n, 2) added up in the cells of (entitlements, pools, 2); cell -1 is of nobody known."""
        places, size = np.asarray(cells, dtype=np.int64) + 1, len(self._cells) + 1
        sums = [np.bincount(places, amounts[:, unit], minlength=size)[1:].astype(np.float64) for unit in range(2)]
        return np.stack(sums, axis=-1).reshape(len(self.names), len(self.pools), 2)

    def _table(self, records: Mapping[str, str], width: int) -> Column:
        """The records of all entitlements; zeros where there is none."""
        nothing = " ".join("0" * width)
        return _numbers([records.get(name, nothing) for name in self.names]).reshape(-1, width)

    def _standing(self, shares: Mapping[str, str], asked: Column, served: Column) -> Standing:
        debt, asked_then, served_then, asked_rate, served_rate = self._table(shares, _SHARES_WIDTH)[:, -5:].T
        new = np.array([name not in shares for name in self.names], dtype=bool)
        return Standing(
            at_ms=int(shares.get(AT, 0)),
            debt=debt / MICRO,
            asked=np.where(new, asked, asked_then),  # all that a new one ever asked it did not ask since then
            served=np.where(new, served, served_then),
            asked_rate=asked_rate / MILLI,
            served_rate=served_rate / MILLI,
            wanted=tuple(_history(shares.get(HISTORY + name, "")) for name in self.pools),
        )


def desired(record: str) -> int:
    """Of a pool's record."""
    return int(record.rpartition(" ")[2])


def _pool_record(pool: PoolShares) -> str:
    sums = np.floor(np.concatenate((pool.elastic, pool.surplus[1:])) + _ALMOST).astype(np.int64).tolist()
    return " ".join(map(str, (pool.live, *sums, pool.desired)))


def _history(text: str) -> tuple[tuple[int, int], ...]:
    pairs = (entry.split(":") for entry in text.split())
    return tuple((int(ms), int(servers)) for ms, servers in pairs)


def _numbers(texts: Iterable[str]) -> Column:
    """Numbers, with or without spaces between. JSON's parser reads them fastest."""
    text = " ".join(texts).replace(" ", ",")
    return np.array(msgspec.json.decode(f"[{text}]", type=list[float]), dtype=np.float64)


def _printed(table: Column) -> list[str]:
    """Each row of whole numbers as a record; printed as JSON, which takes a third of the time of formatting each."""
    if not len(table):
        return []
    text = msgspec.json.encode(table.astype(np.int64).tolist()).decode()
    return text[2:-2].replace(",", " ").split("] [")
