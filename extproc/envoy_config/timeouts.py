"""How long Envoy waits. A request may have to wait for room before it has a verdict: all of these outlast that.

Envoy's other time-outs end before (headers and body of a client) or begin after it (what a server may take).
"""

from __future__ import annotations

from datetime import timedelta

from extproc.core.settings import Settings
from extproc.envoy_config.deployment import Deployment


def verdict(settings: Settings, deployment: Deployment) -> timedelta:
    """A worker that hangs is noticed sooner, by the pings on its connection."""
    wait = timedelta(milliseconds=settings.longest_wait_ms)
    return timedelta(seconds=deployment.verdict_timeout_seconds) + wait


def silence(settings: Settings, deployment: Deployment) -> timedelta:
    """In which neither a client nor a server sends anything. While a request waits for its verdict, nobody does."""
    return max(timedelta(seconds=settings.request_timeout_seconds), verdict(settings, deployment))


def verdict_stream(settings: Settings, deployment: Deployment) -> timedelta:
    """Of a request on borrowed room the stream stays open to its end, and its end would be the request's."""
    answer = timedelta(seconds=settings.request_timeout_seconds + settings.lease_seconds)
    return verdict(settings, deployment) + answer
