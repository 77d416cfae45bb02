"""What the policy says of a model's entitlements, in columns: built once for all ticks under that policy."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extproc.core import weights
from extproc.core.policy import UNITS, Entitlement, Model, Pool, Scaling, ServiceClass, Sharing, Vector
from extproc.core.seen import Column

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Terms:
    """Row i is the i-th entitlement; units as in `seen`. Treat the arrays as frozen, too."""

    pools: tuple[Pool, ...]
    sharing: Sharing
    scaling: Scaling
    server: Column  # (pools, 3) what one server of the pool gives
    capacity: Column  # (3,) of all configured servers of all pools
    base: Column  # (entitlements, 3)
    caps: Column  # (entitlements, 3) the configured burst
    weight: Column  # (entitlements,) class times urgency
    lot: Column  # (entitlements,) from 0 to 1, of the name: where each begins in the rotation of equals
    dedicated: Mask
    guaranteed: Mask
    elastic: Mask
    preemptible: Mask
    surplus: Mask  # spot and preemptible

    @property
    def promised(self) -> Mask:
        return self.dedicated | self.guaranteed

    @property
    def promises(self) -> Column:
        """(3,) which stand in every pool: a tenant may need any of them."""
        total: Column = self.base[self.promised].sum(axis=0)
        return total

    @property
    def headroom(self) -> Column:
        """(pools, 3) what stays unlent of idle guaranteed bases: as many requests, each with a slot's part of KV."""
        requests = self.sharing.headroom_requests
        kv_of_slot = np.floor(self.server[:, 1] / np.maximum(1.0, self.server[:, 2]))
        return np.column_stack((np.zeros(len(self.pools)), requests * kv_of_slot, np.full(len(self.pools), requests)))


def terms(model: Model, entitlements: Sequence[Entitlement]) -> Terms:
    """The entitlements are those of this model, in the order of the policy."""

    def of_class(belongs: Callable[[ServiceClass], bool]) -> Mask:
        return np.array([belongs(entitlement.service_class) for entitlement in entitlements], dtype=np.bool_)

    server = _vectors([pool.server_capacity for pool in model.pools])
    servers = np.array([[len(pool.endpoints)] for pool in model.pools], dtype=np.float64)
    sharing = model.sharing
    constant = [
        weights.of_class(sharing, e.service_class) * weights.urgency(sharing, e.slo_ttft_ms) for e in entitlements
    ]
    return Terms(
        pools=model.pools,
        sharing=sharing,
        scaling=model.scaling,
        server=server,
        capacity=(server * servers).sum(axis=0),
        base=_vectors([entitlement.base for entitlement in entitlements]),
        caps=_vectors([entitlement.caps for entitlement in entitlements]),
        weight=np.array(constant, dtype=np.float64),
        lot=np.array([zlib.crc32(e.name.encode()) / 2**32 for e in entitlements], dtype=np.float64),
        dedicated=of_class(lambda one: one is ServiceClass.DEDICATED),
        guaranteed=of_class(lambda one: one is ServiceClass.GUARANTEED),
        elastic=of_class(lambda one: one is ServiceClass.ELASTIC),
        preemptible=of_class(lambda one: one is ServiceClass.PREEMPTIBLE),
        surplus=of_class(lambda one: one.surplus),
    )


def _vectors(vectors: Sequence[Vector]) -> Column:
    rows = [[getattr(vector, unit) for unit in UNITS] for vector in vectors]
    return np.array(rows, dtype=np.float64).reshape(len(vectors), len(UNITS))
