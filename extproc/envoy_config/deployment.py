"""Where things listen: what Envoy's configuration needs and the settings do not say."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from extproc.core.policy import SIMULATED, Model, Pool

UNIX = "unix:"


class UnknownServerError(LookupError):
    """A `sim://` endpoint has no real address. Say in `Deployment.endpoints` where its simulator listens."""


@dataclass(frozen=True, slots=True)
class SimulatedServer:
    """One `sim://` endpoint of a pool, by its place in the pool's list."""

    model: str
    pool: str
    index: int  # from 0


@dataclass(frozen=True, slots=True)
class Deployment:
    """Addresses and paths of one installation."""

    sidecars: tuple[str, ...]  # host:port or unix:/path, one for each worker process
    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 9901
    endpoints: Mapping[SimulatedServer, str] = field(default_factory=dict)  # http://host:port of what is simulated
    lua_path: str | None = None  # where Envoy finds strip_usage.lua; None: its text stands in the configuration
    verdict_timeout_seconds: float = 2.0
    ca_file: str = "/etc/ssl/certs/ca-certificates.crt"  # who signs for https:// endpoints
    peer_sets_identity: bool = False  # only an authenticating proxy reaches this listener: keep its identity header


@dataclass(frozen=True, slots=True)
class Server:
    host: str
    port: int
    tls: bool = False

    @property
    def is_ip(self) -> bool:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def authority(self) -> str:
        """What the `host` header says of it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default_port = 443 if self.tls else 80
        return host if self.port == default_port else f"{host}:{self.port}"


def server(address: str) -> Server:
    """Reads http://host:port, https://host:port or host:port."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    tls = parts.scheme == "https"
    if parts.hostname is None:
        raise ValueError(f"no host in the address {address!r}")
    return Server(parts.hostname, parts.port or (443 if tls else 80), tls)


def pool_servers(model: Model, pool: Pool, deployment: Deployment) -> tuple[Server, ...]:
    """The servers of a pool. Raises UnknownServerError for a simulated one without an address."""
    return tuple(server(_real(model, pool, index, deployment)) for index in range(len(pool.endpoints)))


def _real(model: Model, pool: Pool, index: int, deployment: Deployment) -> str:
    address = pool.endpoints[index]
    if not address.startswith(SIMULATED):
        return address
    try:
        return deployment.endpoints[SimulatedServer(model.name, pool.name, index)]
    except KeyError:
        raise UnknownServerError(
            f"server {index} of pool {pool.name!r} of model {model.name!r} is simulated ({address}): "
            "its real address is not known"
        ) from None
