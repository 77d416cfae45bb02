"""The settings as Envoy's configuration: one static file, or files that a running Envoy follows (filesystem xDS)."""

from extproc.envoy_config.deployment import Deployment, SimulatedServer, UnknownServerError
from extproc.envoy_config.documents import dump, static_config, write_xds

__all__ = ["Deployment", "SimulatedServer", "UnknownServerError", "dump", "static_config", "write_xds"]
