"""Everything the configuration file says, as frozen values; `config` makes them."""

from __future__ import annotations

from dataclasses import dataclass

from extproc.core.policy import FailMode, Policy

MIB = 1024 * 1024
RENEWALS = 6  # how often Envoy speaks of a running request within the lifetime of its lease


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an auth filter in front of the sidecar names the entitlement: a header, or dynamic metadata."""

    header: str | None = None
    metadata_namespace: str | None = None
    metadata_key: str | None = None


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where Envoy sends its spans. The sidecar's own exporter obeys the standard OTEL_* variables."""

    otlp_grpc: str  # host:port
    sample_percent: float = 100.0


@dataclass(frozen=True, slots=True)
class Settings:
    policy: Policy
    redis: str | None = None  # None: `tokenpool up` starts its own
    identity: Identity | None = None
    fail: FailMode = FailMode.CLOSED
    tracing: Tracing | None = None
    max_body_bytes: int = 32 * MIB
    request_timeout_seconds: int = 600  # Envoy ends a request then
    lease_seconds: int = 30  # how long a lease outlives the last that Envoy said of its request
    redis_timeout_ms: int = 50  # what a verdict may wait for Redis before it is a 503
    tick_ms: int = 1000  # how often the controller sets the shares

    @property
    def longest_wait_ms(self) -> int:
        """The longest that any request may wait for room."""
        return max((entitlement.max_wait_ms for entitlement in self.policy.entitlements), default=0)

    @property
    def renewal_seconds(self) -> float:
        return self.lease_seconds / RENEWALS


def without_password(url: str) -> str:
    """A Redis URL as messages may show it. A query may hold a password, too: `?password=`."""
    address, has_query, _ = url.partition("?")
    scheme, separator, rest = address.partition("://")
    credentials, at, hosts = rest.rpartition("@")
    user, has_password, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':***' if has_password else ''}{at}{hosts}{'?***' if has_query else ''}"
