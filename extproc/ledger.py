"""The ledger's port: what verdicts and settlements need of the shared state, and the values they exchange with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from extproc.core.estimate import Beliefs
from extproc.core.facts import Category
from extproc.core.lessons import Observation
from extproc.core.policy import Entitlement, Vector
from extproc.core.refusal import Reason
from extproc.core.seen import Seen, Shares
from extproc.core.wording import Limits


class LedgerUnavailable(Exception):  # noqa: N818 - it names the state of affairs
    """The shared state cannot be reached in time. Refuse with 503, or decide without it; never let it escape."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One request that asks for a lease. Pools are tried in the order given."""

    lease: str
    model: str
    entitlement: Entitlement
    pools: tuple[str, ...]
    tokens: int  # debited from the buckets, weighted by the model's cost
    kv_tokens: int  # held until settlement
    fingerprint: str = ""  # of the content: who asks for the same again has not asked for more; "": the lease


@dataclass(frozen=True, slots=True)
class Admitted:
    pool: str
    limits: Limits
    borrowed: bool = False  # its room may be taken back: await Ledger.taken_back and end the request then


@dataclass(frozen=True, slots=True)
class Refused:
    reason: Reason  # TOKENS_PER_SECOND, KV_TOKENS, CONCURRENCY or POOL_CAPACITY
    retry_ms: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a lease."""

    lease: str
    model: str
    tokens: int  # charged, weighted by the model's cost
    prompt_tokens: int
    completion_tokens: int
    observation: Observation | None = None


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    lease: str
    entitlement: str
    pool: str
    tokens: int
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class EntitlementState:
    in_use: Vector  # tokens_per_second: tokens held by leases, spread over the entitlement's window
    peak: Vector  # the most ever in use at one instant (tokens_per_second: 0, not recorded)
    balance_tokens: int  # what both buckets hold now; negative after over-use
    settled_prompt_tokens: int = 0
    settled_completion_tokens: int = 0
    share: Vector | None = None  # None: no tick has set it yet
    cap: Vector | None = None
    debt: float = 0.0
    weight: float = 1.0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class PoolState:
    in_use: Vector
    servers: int | None = None  # that answer; None: no tick has counted them yet
    desired: int | None = None


@dataclass(frozen=True, slots=True)
class ModelState:
    pools: dict[str, PoolState] = field(default_factory=dict)
    entitlements: dict[str, EntitlementState] = field(default_factory=dict)
    leases: int = 0
    bytes_per_token: dict[str, float] = field(default_factory=dict)  # by category, once observed


class Ledger(Protocol):
    """Every method raises LedgerUnavailable where the shared state cannot be reached within its time."""

    async def admit(self, demand: Demand) -> Admitted | Refused:
        """Waits for room for up to the entitlement's max_wait_ms. Cancelled, it leaves nothing behind."""

    async def taken_back(self, lease: str) -> None:
        """Returns when the room of a borrowed lease was taken back. Cancel it when the request is over."""

    async def settle(self, settlement: Settlement) -> bool:
        """True where this call settled the lease; False where it was settled or expired before."""

    async def renew(self, model: str, leases: Sequence[str]) -> int:
        """Moves the deadlines of leases whose requests are still running; how many there were."""

    async def expired(self, model: str, limit: int) -> tuple[ExpiredLease, ...]:
        """Leases past their deadline, oldest first; they are settled like any other."""

    async def beliefs(self, model: str, wanted: Sequence[tuple[str, Category]]) -> list[Beliefs]:
        """What has been learned for each (entitlement, category), in the order asked."""

    async def state(self, model: str) -> ModelState: ...

    async def alive(self) -> bool: ...


class Stewardship(Protocol):
    """What the controller needs of the shared state. Every method raises LedgerUnavailable as those of Ledger do."""

    async def lead(self, model: str, holder: str, term_ms: int) -> int:
        """Takes or keeps the lead of a model for so long; the number of the term, or 0 while another leads.

        Terms only rise: what is set under an old one has no effect, however late it arrives.
        """

    async def seen(self, model: str, live: tuple[int, ...]) -> Seen: ...

    async def set_shares(self, model: str, term: int, shares: Shares) -> bool:
        """True where they took effect: the term is still the newest, and has not run out."""

    async def desired(self, model: str) -> dict[str, int]:
        """Servers that each pool should have, as the last tick set them; empty before the first."""
