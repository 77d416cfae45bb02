"""Everything the configuration file says, as frozen values; `config` makes them."""

from __future__ import annotations

from dataclasses import dataclass

from extproc.core.policy import FailMode, Policy

MIB = 1024 * 1024


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
    request_timeout_seconds: int = 600  # Envoy ends a request then; its lease outlives it by LEASE_GRACE_SECONDS
    redis_timeout_ms: int = 50  # what a verdict may wait for Redis before it is a 503


LEASE_GRACE_SECONDS = 30  # time for the last access-log entry to arrive
