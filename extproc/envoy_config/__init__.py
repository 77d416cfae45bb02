"""The settings as Envoy's configuration: one static file, or files that a running Envoy follows (filesystem xDS)."""

import warnings

with warnings.catch_warnings():
    # The classes that envoy-data-plane generates use a form of validator that pydantic 2.12 deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from extproc.envoy_config.deployment import Deployment, SimulatedServer, UnknownServerError
    from extproc.envoy_config.documents import dump, static_config, write_xds

__all__ = ["Deployment", "SimulatedServer", "UnknownServerError", "dump", "static_config", "write_xds"]
