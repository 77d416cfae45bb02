"""Whom Envoy talks to: the model servers, pool by pool, the sidecar's workers, and the trace collector."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import betterproto2
from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request import v3 as least_request
from envoy_data_plane.envoy.extensions.transport_sockets.raw_buffer import v3 as raw_buffer
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream
from envoy_data_plane.envoy.type import v3 as envoy_type
from envoy_data_plane.google.protobuf import Any, Struct

from extproc.core.metadata import cluster_name
from extproc.core.policy import Model, Pool
from extproc.core.settings import Settings
from extproc.envoy_config.deployment import UNIX, Deployment, Server, pool_servers, server

SIDECAR = "tokenpool-sidecar"
TRACES = "tokenpool-traces"
READINESS = "readiness"  # the sidecar's gRPC health service that says: send me requests

NO_LIMIT = 1_000_000  # Envoy's own default is 1,024 of everything: https://www.envoyproxy.io/docs circuit breakers
CONNECT_TIMEOUT = timedelta(seconds=1)
SERVER_HEALTH_INTERVAL = timedelta(seconds=2)
SIDECAR_HEALTH_INTERVAL = timedelta(seconds=0.5)
# uvicorn, hence vLLM, closes a connection after 5 idle seconds: close first, or a request meets a closed one.
SERVER_IDLE_TIMEOUT = timedelta(seconds=4)
# A pool with one live server keeps its requests: by default a long pool takes over from 71 % health downwards.
NO_EARLY_FAILOVER = 100_000
SIDECAR_STREAM_WINDOW_BYTES = 16 * 1024 * 1024
SIDECAR_CONNECTION_WINDOW_BYTES = 256 * 1024 * 1024

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def packed(message: betterproto2.Message) -> Any:
    """The message as Envoy's typed_config; it prints as the message with its "@type"."""
    return Any.pack(message)


def clusters(settings: Settings, deployment: Deployment) -> list[cluster.Cluster]:
    """All clusters, in a stable order."""
    result = [sidecar_cluster(deployment)]
    if settings.tracing is not None:
        result.append(_grpc_cluster(TRACES, (settings.tracing.otlp_grpc,)))
    for model in settings.policy.models:
        result.extend(pool_cluster(model, index, deployment) for index in range(len(model.pools)))
    return result


def pool_cluster(model: Model, index: int, deployment: Deployment) -> cluster.Cluster:
    """A pool's servers; behind them, at priority 1, those of the next longer pool."""
    pool = model.pools[index]
    levels = [pool_servers(model, each, deployment) for each in model.pools[index : index + 2]]
    name = cluster_name(model.name, pool.name)
    servers = [each for level in levels for each in level]
    return cluster.Cluster(
        name=name,
        type=_discovery(servers),
        dns_lookup_family=cluster.ClusterDnsLookupFamily.V4_PREFERRED,
        load_balancing_policy=_fewest_requests(),
        connect_timeout=CONNECT_TIMEOUT,
        circuit_breakers=_no_limits(),
        upstream_connection_options=_keepalive(),
        typed_extension_protocol_options={_HTTP_OPTIONS: packed(_http1())},
        health_checks=[_server_health()],
        # The dead server has the fewest requests: without this every retry would choose it again.
        outlier_detection=_eject_when_dead(),
        # 0: where no server is healthy, say so at once. Unknown health refuses nobody: a cluster
        # is used only after its first round of checks.
        common_lb_config=_panic_below_percent(0),
        transport_socket_matches=_transports(deployment) if any(each.tls for each in servers) else [],
        load_assignment=endpoint.ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[_locality(priority, map(_lb_endpoint, level)) for priority, level in enumerate(levels)],
            policy=endpoint.ClusterLoadAssignmentPolicy(overprovisioning_factor=NO_EARLY_FAILOVER),
        ),
    )


def longest_pool(model: Model) -> Pool:
    return model.pools[-1]


def sidecar_cluster(deployment: Deployment) -> cluster.Cluster:
    """The sidecar's workers, one address each: Envoy opens one connection per thread and address."""
    workers = _grpc_cluster(SIDECAR, deployment.sidecars)
    # Not by the fewest requests: a dead worker has the fewest, and a retry would choose it again.
    workers.lb_policy = cluster.ClusterLbPolicy.ROUND_ROBIN
    workers.health_checks = [_sidecar_health()]
    # Above 0: where no worker looks healthy, ask all the same. A busy one may miss a check and still answer.
    workers.common_lb_config = _panic_below_percent(1)
    workers.outlier_detection = _eject_when_dead()
    return workers


def _grpc_cluster(name: str, addresses: tuple[str, ...]) -> cluster.Cluster:
    return cluster.Cluster(
        name=name,
        type=_discovery([server(each) for each in addresses if not each.startswith(UNIX)]),
        dns_lookup_family=cluster.ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=CONNECT_TIMEOUT,
        circuit_breakers=_no_limits(),
        upstream_connection_options=_keepalive(),
        typed_extension_protocol_options={_HTTP_OPTIONS: packed(_http2())},
        load_assignment=endpoint.ClusterLoadAssignment(
            cluster_name=name, endpoints=[_locality(0, map(_grpc_endpoint, addresses))]
        ),
    )


def _discovery(servers: list[Server]) -> cluster.ClusterDiscoveryType:
    static = all(each.is_ip for each in servers)
    return cluster.ClusterDiscoveryType.STATIC if static else cluster.ClusterDiscoveryType.STRICT_DNS


def _locality(priority: int, endpoints: Iterable[endpoint.LbEndpoint]) -> endpoint.LocalityLbEndpoints:
    return endpoint.LocalityLbEndpoints(priority=priority, lb_endpoints=list(endpoints))


def _lb_endpoint(target: Server) -> endpoint.LbEndpoint:
    marks = core.Metadata(filter_metadata={"envoy.transport_socket_match": Struct.from_dict({"tls": True})})
    return endpoint.LbEndpoint(
        metadata=marks if target.tls else None,
        endpoint=endpoint.Endpoint(
            hostname=target.authority,
            address=socket_address(target.host, target.port),
            health_check_config=endpoint.EndpointHealthCheckConfig(hostname=target.authority),
        ),
    )


def _grpc_endpoint(address: str) -> endpoint.LbEndpoint:
    if address.startswith(UNIX):
        where = core.Address(pipe=core.Pipe(path=address.removeprefix(UNIX)))
    else:
        target = server(address)
        where = socket_address(target.host, target.port)
    return endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=where))


def socket_address(host: str, port: int) -> core.Address:
    return core.Address(socket_address=core.SocketAddress(address=host, port_value=port))


def _transports(deployment: Deployment) -> list[cluster.ClusterTransportSocketMatch]:
    """TLS for the endpoints marked so, plain text for the others of the same cluster."""
    context = tls.UpstreamTlsContext(
        auto_host_sni=True,
        auto_sni_san_validation=True,
        common_tls_context=tls.CommonTlsContext(
            validation_context=tls.CertificateValidationContext(
                trusted_ca=core.DataSource(filename=deployment.ca_file),
            )
        ),
    )
    secure = core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))
    plain = core.TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=packed(raw_buffer.RawBuffer()))
    return [
        cluster.ClusterTransportSocketMatch(name="tls", match=Struct.from_dict({"tls": True}), transport_socket=secure),
        cluster.ClusterTransportSocketMatch(name="plain", match=Struct.from_dict({}), transport_socket=plain),
    ]


def _server_health() -> core.HealthCheck:
    return core.HealthCheck(
        timeout=timedelta(seconds=1),
        interval=SERVER_HEALTH_INTERVAL,
        no_traffic_interval=SERVER_HEALTH_INTERVAL,  # by default a minute: a restarted server would wait for it
        unhealthy_threshold=2,
        healthy_threshold=1,
        http_health_check=core.HealthCheckHttpHealthCheck(path="/health"),
    )


def _sidecar_health() -> core.HealthCheck:
    return core.HealthCheck(
        timeout=SIDECAR_HEALTH_INTERVAL,
        interval=SIDECAR_HEALTH_INTERVAL,
        no_traffic_interval=SIDECAR_HEALTH_INTERVAL,
        unhealthy_threshold=2,
        healthy_threshold=1,
        grpc_health_check=core.HealthCheckGrpcHealthCheck(service_name=READINESS),
    )


def _eject_when_dead() -> cluster.OutlierDetection:
    """One failed connection is enough: it takes effect sooner than a health check."""
    return cluster.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=1,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        interval=SIDECAR_HEALTH_INTERVAL,
        base_ejection_time=timedelta(seconds=1),
        max_ejection_time=timedelta(seconds=1),
        max_ejection_percent=50,
    )


def _panic_below_percent(percent: float) -> cluster.ClusterCommonLbConfig:
    # By default the second change of health within a second waits until that second is over.
    return cluster.ClusterCommonLbConfig(
        healthy_panic_threshold=envoy_type.Percent(value=percent), update_merge_window=timedelta(0)
    )


def _keepalive() -> cluster.UpstreamConnectionOptions:
    return cluster.UpstreamConnectionOptions(
        tcp_keepalive=core.TcpKeepalive(keepalive_probes=3, keepalive_time=30, keepalive_interval=10)
    )


def _no_limits() -> cluster.CircuitBreakers:
    limits = cluster.CircuitBreakersThresholds(
        max_connections=NO_LIMIT, max_pending_requests=NO_LIMIT, max_requests=NO_LIMIT, max_retries=NO_LIMIT
    )
    return cluster.CircuitBreakers(thresholds=[limits])


def _http1() -> upstream.HttpProtocolOptions:
    return upstream.HttpProtocolOptions(
        common_http_protocol_options=core.HttpProtocolOptions(idle_timeout=SERVER_IDLE_TIMEOUT),
        explicit_http_config=upstream.HttpProtocolOptionsExplicitHttpConfig(
            http_protocol_options=core.Http1ProtocolOptions()
        ),
    )


def _http2() -> upstream.HttpProtocolOptions:
    options = core.Http2ProtocolOptions(
        initial_stream_window_size=SIDECAR_STREAM_WINDOW_BYTES,
        initial_connection_window_size=SIDECAR_CONNECTION_WINDOW_BYTES,
        # By default 1,024: each request on borrowed room has a stream of its own, and then needs a new connection.
        max_concurrent_streams=NO_LIMIT,
        # A frozen worker would keep the access log's stream for good, and with it every settlement and renewal.
        connection_keepalive=core.KeepaliveSettings(interval=timedelta(seconds=1), timeout=timedelta(seconds=2)),
    )
    return upstream.HttpProtocolOptions(
        explicit_http_config=upstream.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=options)
    )


def _fewest_requests() -> cluster.LoadBalancingPolicy:
    """The server with the fewest requests of all, not of two drawn by chance."""
    policy = least_request.LeastRequest(selection_method=least_request.LeastRequestSelectionMethod.FULL_SCAN)
    extension = core.TypedExtensionConfig(
        name="envoy.load_balancing_policies.least_request", typed_config=packed(policy)
    )
    return cluster.LoadBalancingPolicy(policies=[cluster.LoadBalancingPolicyPolicy(typed_extension_config=extension)])
