"""Metrics and spans: what workers record of facts, and what the supervisor serves of it."""

from extproc.telemetry.observer import Telemetry
from extproc.telemetry.scrape import MetricsDirectory, StateCollector
from extproc.telemetry.tracing import shut_down, tracer_provider

__all__ = ["MetricsDirectory", "StateCollector", "Telemetry", "shut_down", "tracer_provider"]
