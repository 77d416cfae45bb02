"""compose.yaml as its readers see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "envoy" / "tokenpool.compose.yaml"
ENVOY_CONFIG = ROOT / "envoy" / "envoy.yaml"

Service = dict[str, Any]


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return document


def services() -> dict[str, Service]:
    found: dict[str, Service] = load(ROOT / "compose.yaml")["services"]
    return found


def in_profile(profile: str) -> dict[str, Service]:
    """What starts with this profile: its own services, and those that have none."""
    return {name: one for name, one in services().items() if profile in one.get("profiles", [profile])}


def aliases(service: Service) -> list[str]:
    networks = service.get("networks", {})
    return [alias for network in networks.values() for alias in network["aliases"]]
