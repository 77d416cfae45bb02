"""Imports what warns while it is imported: envoy-data-plane defines its classes in a way that pydantic deprecates."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import extproc.envoy_config  # noqa: F401
