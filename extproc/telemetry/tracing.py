"""Where spans go: OTLP, as the standard OTEL_* variables say, and nowhere where they name no endpoint.

A collector that is slow or dead costs spans, never time: a bounded queue is emptied by a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

_DEFAULT_SERVICE = "tokenpool"
_QUIET_SECONDS = 60.0
# What logs a dead collector, once per try, and a full queue, once per span.
_NOISY_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
_logger = logging.getLogger(__name__)


def tracer_provider(environ: Mapping[str, str]) -> TracerProvider | None:
    """A provider that exports in batches; None where tracing is off or has no endpoint to go to.

    The endpoint, the protocol and the resource come from `environ`. Headers, certificates, compression, time limits,
    batch sizes and the sampler are read by the SDK itself, from the process's own environment.
    """
    endpoint = _endpoint(environ)
    if endpoint is None or _disabled(environ):
        return None
    for name in _NOISY_LOGGERS:
        _quieten(logging.getLogger(name))
    # The owner flushes at shutdown, with a bound; the SDK's own exit hook may take 30 s.
    provider = TracerProvider(resource=_resource(environ), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(endpoint, environ)))
    return provider


def shut_down(provider: TracerProvider, seconds: float) -> bool:
    """Send what is queued; give up after `seconds`. Blocks: call it from a thread. Returns whether it finished."""
    # TracerProvider.shutdown waits 30 s for a dead collector and takes no other bound, hence a thread to leave behind.
    thread = threading.Thread(target=provider.shutdown, name="tokenpool-trace-shutdown", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def _disabled(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return True
    return environ.get("OTEL_TRACES_EXPORTER", "").strip() not in ("", "otlp")


def _protocol(environ: Mapping[str, str]) -> str:
    named = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if named not in ("grpc", "http/protobuf"):
        _logger.warning("OTEL_EXPORTER_OTLP_PROTOCOL %r is not supported; spans go by grpc", named)
        return "grpc"
    return named


def _endpoint(environ: Mapping[str, str]) -> str | None:
    """The signal's own endpoint is used as it is; the general one gets the path of traces, for HTTP."""
    own = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if own:
        return own
    general = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not general:
        return None
    return general if _protocol(environ) == "grpc" else general.rstrip("/") + "/v1/traces"


def _exporter(endpoint: str, environ: Mapping[str, str]) -> SpanExporter:
    return GrpcExporter(endpoint=endpoint) if _protocol(environ) == "grpc" else HttpExporter(endpoint=endpoint)


def _resource(environ: Mapping[str, str]) -> Resource:
    attributes = {SERVICE_NAME: _DEFAULT_SERVICE}
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, separator, value = pair.partition("=")
        if separator:
            attributes[key.strip()] = unquote(value.strip())
    named = environ.get("OTEL_SERVICE_NAME")
    if named:
        attributes[SERVICE_NAME] = named
    return Resource.create(dict(attributes))


def _quieten(logger: logging.Logger) -> None:
    if not any(isinstance(present, SparseLog) for present in logger.filters):
        logger.addFilter(SparseLog())


class SparseLog(logging.Filter):
    """Lets one record a minute through: the first says what is wrong, the rest would say it again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._quiet_until = -1.0

    def filter(self, _record: logging.LogRecord) -> bool:
        now = self._clock()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + _QUIET_SECONDS
        return True
