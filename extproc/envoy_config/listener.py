"""The one listener that clients talk to, and what its connection manager does around the filters."""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.config.trace import v3 as trace
from envoy_data_plane.envoy.extensions.access_loggers.grpc import v3 as grpc_log
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import v3 as early
from envoy_data_plane.envoy.extensions.request_id.uuid import v3 as request_id
from envoy_data_plane.envoy.type import v3 as envoy_type

from extproc.core.metadata import STREAM_HEADER, VERDICT
from extproc.core.settings import Settings, Tracing
from extproc.envoy_config import timeouts
from extproc.envoy_config.clusters import SIDECAR, TRACES, packed, socket_address
from extproc.envoy_config.deployment import Deployment
from extproc.envoy_config.filters import changed_at_the_edge, http_filters
from extproc.envoy_config.local_replies import local_reply_config
from extproc.envoy_config.routes import ROUTES, exactly, metadata_matcher, route_configuration

LISTENER = "tokenpool"
SERVICE = "tokenpool-envoy"
HEADERS_TIMEOUT = timedelta(seconds=10)
BODY_TIMEOUT = timedelta(seconds=60)  # headers and body; 32 MiB over 5 Mbit/s
# An answer that is cut off ends with its connection: by default its client would not know for a second.
CLOSE_DELAY = timedelta(milliseconds=50)
# A slot stays taken until its entry arrives; the default of a second would waste that much of it.
LOG_FLUSH_INTERVAL = timedelta(milliseconds=10)
LOG_BATCH_BYTES = 64 * 1024


def ingress(settings: Settings, deployment: Deployment, route_file: core.ConfigSource | None) -> listener.Listener:
    """The listener; its routes stand in it, or in a file of their own where one is named."""
    manager = hcm.HttpConnectionManager(
        stat_prefix="ingress",
        codec_type=hcm.HttpConnectionManagerCodecType.AUTO,
        http_filters=http_filters(settings, deployment),
        access_log=[_settlement_log()],
        access_log_options=hcm.HttpConnectionManagerHcmAccessLogOptions(
            access_log_flush_interval=timedelta(seconds=settings.renewal_seconds)  # renews the leases of long requests
        ),
        local_reply_config=local_reply_config(),
        early_header_mutation_extensions=[_edge(settings, deployment)],
        request_id_extension=_request_ids(),
        tracing=None if settings.tracing is None else _tracing(settings.tracing),
        # The client's address is that of its connection; whoever is in front is not believed.
        use_remote_address=True,
        internal_address_config=hcm.HttpConnectionManagerInternalAddressConfig(),
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=hcm.HttpConnectionManagerPathWithEscapedSlashesAction.UNESCAPE_AND_FORWARD,
        request_headers_timeout=HEADERS_TIMEOUT,
        request_timeout=BODY_TIMEOUT,
        delayed_close_timeout=CLOSE_DELAY,
        stream_idle_timeout=timeouts.silence(settings, deployment),
        common_http_protocol_options=core.HttpProtocolOptions(
            # x_tokenpool_pool would pass for x-tokenpool-pool in a server that follows CGI
            headers_with_underscores_action=core.HttpProtocolOptionsHeadersWithUnderscoresAction.DROP_HEADER,
        ),
    )
    if route_file is None:
        manager.route_config = route_configuration(settings)
    else:
        manager.rds = hcm.Rds(config_source=route_file, route_config_name=ROUTES)
    chain = listener.FilterChain(
        filters=[
            listener.Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager)),
        ]
    )
    return listener.Listener(
        name=LISTENER,
        address=socket_address(deployment.host, deployment.port),
        filter_chains=[chain],
    )


def _edge(settings: Settings, deployment: Deployment) -> core.TypedExtensionConfig:
    return core.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=packed(early.HeaderMutation(mutations=changed_at_the_edge(settings, deployment))),
    )


def _request_ids() -> hcm.RequestIdExtension:
    """A client's own x-request-id must not decide whether its request is traced."""
    config = request_id.UuidRequestIdConfig(pack_trace_reason=False, use_request_id_for_trace_sampling=False)
    return hcm.RequestIdExtension(typed_config=packed(config))


def _settlement_log() -> accesslog.AccessLog:
    """One entry for each request that may hold a lease; those that were refused cost nothing.

    One whose client left before the verdict came has a lease, perhaps, but no ticket: hence its id.
    """
    common = grpc_log.CommonGrpcAccessLogConfig(
        log_name="tokenpool",
        transport_api_version=core.ApiVersion.V3,
        grpc_service=core.GrpcService(envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=SIDECAR)),
        buffer_flush_interval=LOG_FLUSH_INTERVAL,
        buffer_size_bytes=LOG_BATCH_BYTES,
    )
    return accesslog.AccessLog(
        name="envoy.access_loggers.http_grpc",
        filter=accesslog.AccessLogFilter(
            metadata_filter=accesslog.MetadataFilter(
                matcher=metadata_matcher(VERDICT, exactly("admit")), match_if_key_not_found=True
            )
        ),
        typed_config=packed(
            grpc_log.HttpGrpcAccessLogConfig(common_config=common, additional_request_headers_to_log=[STREAM_HEADER])
        ),
    )


def _tracing(tracing: Tracing) -> hcm.HttpConnectionManagerTracing:
    config = trace.OpenTelemetryConfig(
        grpc_service=core.GrpcService(envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=TRACES)),
        service_name=SERVICE,
    )
    return hcm.HttpConnectionManagerTracing(
        random_sampling=envoy_type.Percent(value=tracing.sample_percent),
        spawn_upstream_span=True,
        provider=trace.TracingHttp(name="envoy.tracers.opentelemetry", typed_config=packed(config)),
    )
