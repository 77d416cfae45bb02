"""Where a request goes: to the pool that its verdict names, or to a clear error.

Without a verdict no request reaches a pool, except with `fail: open`, when the longest pool of the only model takes
what no sidecar judged.
"""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.http.buffer import v3 as buffer
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities import v3 as previous_priorities
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from extproc.core.facts import Api
from extproc.core.metadata import NAMESPACE, ROUTE, cluster_name
from extproc.core.policy import FailMode, Model
from extproc.core.settings import Settings
from extproc.envoy_config.clusters import longest_pool, packed

ROUTES = "tokenpool"
EXT_PROC = "envoy.filters.http.ext_proc"
BUFFER = "envoy.filters.http.buffer"
BODY_LIMIT = "tokenpool.body_limit"  # a second one, before ext_proc
MODELS_PATH = "/v1/models"
BAD_REQUEST, NOT_FOUND, UNAVAILABLE = 400, 404, 503


def route_configuration(settings: Settings) -> route.RouteConfiguration:
    """Verdicts first; then the paths that have no pool."""
    host = route.VirtualHost(
        name=ROUTES,
        domains=["*"],
        routes=[
            *_verdict_routes(settings),
            _pool_not_known_yet(),
            *_models_routes(),
            *_unjudged_routes(settings),
            _catch_all(),
        ],
    )
    # Clusters and routes arrive in separate files: a route may be read before its cluster.
    return route.RouteConfiguration(name=ROUTES, virtual_hosts=[host], validate_clusters=False)


def metadata_matcher(key: str, value: matcher.ValueMatcher) -> matcher.MetadataMatcher:
    """Matches one value of the verdict."""
    return matcher.MetadataMatcher(filter=NAMESPACE, path=[matcher.MetadataMatcherPathSegment(key=key)], value=value)


def exactly(text: str) -> matcher.ValueMatcher:
    return matcher.ValueMatcher(string_match=matcher.StringMatcher(exact=text))


def _verdict_routes(settings: Settings) -> list[route.Route]:
    return [
        route.Route(
            name=cluster_name(model.name, pool.name),
            match=route.RouteMatch(
                prefix="/", dynamic_metadata=[metadata_matcher(ROUTE, exactly(cluster_name(model.name, pool.name)))]
            ),
            route=_to_pool(settings, model, index),
        )
        for model in settings.policy.models
        for index, pool in enumerate(model.pools)
    ]


def _pool_not_known_yet() -> route.Route:
    """A sidecar may have read a new configuration a moment before Envoy."""
    any_verdict = metadata_matcher(ROUTE, matcher.ValueMatcher(present_match=True))
    return route.Route(
        name="pool not known",
        match=route.RouteMatch(prefix="/", dynamic_metadata=[any_verdict]),
        direct_response=route.DirectResponseAction(status=UNAVAILABLE),
    )


def _to_pool(settings: Settings, model: Model, index: int) -> route.RouteAction:
    has_fallback = index + 1 < len(model.pools)
    seconds = timedelta(seconds=settings.request_timeout_seconds)
    return route.RouteAction(
        cluster=cluster_name(model.name, model.pools[index].name),
        cluster_not_found_response_code=route.RouteActionClusterNotFoundResponseCode.SERVICE_UNAVAILABLE,
        timeout=seconds,
        idle_timeout=seconds,
        auto_host_rewrite=True,  # a server sees its own name, not what a client wrote
        retry_policy=_to_longer_pool() if has_fallback else _to_another_server(),
    )


_NOTHING_WAS_SENT = "connect-failure,refused-stream,reset-before-request"


def _to_longer_pool() -> route.RetryPolicy:
    """One retry, at priority 1: on a failed connection always, on a 400 where the verdict set x-envoy-retry-on."""
    priorities = previous_priorities.PreviousPrioritiesConfig(update_frequency=1)
    return route.RetryPolicy(
        retry_on=_NOTHING_WAS_SENT,
        num_retries=1,
        retriable_status_codes=[BAD_REQUEST],
        retry_priority=route.RetryPolicyRetryPriority(
            name="envoy.retry_priorities.previous_priorities", typed_config=packed(priorities)
        ),
    )


def _to_another_server() -> route.RetryPolicy:
    return route.RetryPolicy(
        retry_on=_NOTHING_WAS_SENT,
        num_retries=2,
        retry_host_predicate=[
            route.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=packed(previous_hosts.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=5,
    )


def _models_routes() -> list[route.Route]:
    """The sidecar answers these itself: it gets their headers, so they are authenticated like the others."""
    mode = ext_proc.ProcessingMode(
        request_header_mode=ext_proc.ProcessingModeHeaderSendMode.SEND,
        response_header_mode=ext_proc.ProcessingModeHeaderSendMode.SKIP,
        request_body_mode=ext_proc.ProcessingModeBodySendMode.NONE,
        response_body_mode=ext_proc.ProcessingModeBodySendMode.NONE,
    )
    asks = packed(ext_proc.ExtProcPerRoute(overrides=ext_proc.ExtProcOverrides(processing_mode=mode)))
    return [
        route.Route(
            name=f"models {kind}",
            match=match,
            direct_response=route.DirectResponseAction(status=UNAVAILABLE),  # the sidecar said nothing
            typed_per_filter_config={EXT_PROC: asks, **_unbuffered()},
        )
        for kind, match in (
            ("list", route.RouteMatch(path=MODELS_PATH, headers=[_method("GET")])),
            ("one", route.RouteMatch(prefix=f"{MODELS_PATH}/", headers=[_method("GET")])),
        )
    ]


def _unjudged_routes(settings: Settings) -> list[route.Route]:
    """POSTs that no sidecar judged: they have no body, or (with `fail: open`) no sidecar answered."""
    if settings.fail is FailMode.CLOSED:
        return [_post(api, "without a body", [], BAD_REQUEST) for api in Api]
    bodiless = [_post(api, "without a body", headers, BAD_REQUEST) for api in Api for headers in _signs_of_no_body()]
    return bodiless + [_fail_open(settings, api) for api in Api]


def _signs_of_no_body() -> tuple[list[route.HeaderMatcher], ...]:
    """An HTTP/2 body of undeclared length cannot be told from none here. It waits for a sidecar."""
    return (
        [route.HeaderMatcher(name="content-length", string_match=matcher.StringMatcher(exact="0"))],
        [
            route.HeaderMatcher(name="content-length", present_match=False),
            route.HeaderMatcher(name="transfer-encoding", present_match=False),
        ],
    )


def _fail_open(settings: Settings, api: Api) -> route.Route:
    """Which of several models a request names, only the sidecar knows: then even `fail: open` is a 503."""
    if len(settings.policy.models) != 1:
        return _post(api, "unjudged", [], UNAVAILABLE)
    model = settings.policy.models[0]
    index = model.pools.index(longest_pool(model))
    unjudged = _post(api, "unjudged", [], UNAVAILABLE)
    unjudged.direct_response = None
    unjudged.route = _to_pool(settings, model, index)
    return unjudged


def _post(api: Api, why: str, headers: list[route.HeaderMatcher], status: int) -> route.Route:
    return route.Route(
        name=f"{api.value} {why}",
        match=route.RouteMatch(path=api.value, headers=[_method("POST"), *headers]),
        direct_response=route.DirectResponseAction(status=status),
    )


def _catch_all() -> route.Route:
    return route.Route(
        name="not found",
        match=route.RouteMatch(prefix="/"),
        direct_response=route.DirectResponseAction(status=NOT_FOUND),
        typed_per_filter_config={
            EXT_PROC: packed(ext_proc.ExtProcPerRoute(disabled=True)),
            **_unbuffered(),
        },
    )


def _unbuffered() -> dict[str, Any]:
    """For routes that do not read a body."""
    off = packed(buffer.BufferPerRoute(disabled=True))
    return {BODY_LIMIT: off, BUFFER: off}


def _method(name: str) -> route.HeaderMatcher:
    return route.HeaderMatcher(name=":method", string_match=matcher.StringMatcher(exact=name))
