"""How a sidecar is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from extproc.health import Place


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    config: Path
    redis: str | None  # instead of the file's
    addresses: tuple[str, ...]  # one a worker: host:port or unix:/path
    admin_host: str
    admin_port: int
    json_logs: bool = False
    servers: Mapping[Place, str] = field(default_factory=dict)  # where those of sim:// endpoints are
    request_log: Path | None = None


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    settings: Path  # as `handover` wrote them
    redis: str | None
    address: str
    index: int
    json_logs: bool = False
    request_log: Path | None = None
