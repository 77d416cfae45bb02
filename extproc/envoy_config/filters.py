"""Envoy's HTTP filters around a request, in order: the verdict, what it means for headers, the usage it will cost."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from importlib import resources

import betterproto2
from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.content_parsers.json import v3 as json_parser
from envoy_data_plane.envoy.extensions.filters.http.buffer import v3 as buffer
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.extensions.filters.http.header_mutation import v3 as header_mutation
from envoy_data_plane.envoy.extensions.filters.http.json_to_metadata import v3 as json_to_metadata
from envoy_data_plane.envoy.extensions.filters.http.lua import v3 as lua
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
from envoy_data_plane.envoy.extensions.filters.http.sse_to_metadata import v3 as sse_to_metadata
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from extproc.core.metadata import (
    ATTRIBUTES,
    CACHED_TOKENS,
    COMPLETION_TOKENS,
    NAMESPACE,
    POOL,
    PROMPT_TOKENS,
    RATE_LIMIT_HEADERS,
    RETRY_ON,
    STREAM_HEADER,
    USAGE_NAMESPACE,
    header_attribute,
)
from extproc.core.policy import FailMode, StreamUsage
from extproc.core.settings import Settings
from extproc.envoy_config import timeouts
from extproc.envoy_config.clusters import SIDECAR, packed
from extproc.envoy_config.deployment import Deployment
from extproc.envoy_config.routes import BODY_LIMIT, BUFFER, EXT_PROC

POOL_HEADER = "x-tokenpool-pool"
OWN_PREFIXES = ("x-envoy-", "x-tokenpool-")  # headers that only this side may set
# json_to_metadata holds an answer that is not a stream until it is complete: a batch of embeddings can be long.
# The filter manager has one limit for both directions, and the last filter to set it wins.
LARGEST_ANSWER_BYTES = 256 * 1024 * 1024

# Where the servers' answers say what was used, by metadata key. Of several that are present the last one wins.
USAGE = (
    # messages, first event of a stream
    (PROMPT_TOKENS, ("message", "usage", "input_tokens")),
    # responses, last event of a stream
    (PROMPT_TOKENS, ("response", "usage", "input_tokens")),
    (COMPLETION_TOKENS, ("response", "usage", "output_tokens")),
    (CACHED_TOKENS, ("response", "usage", "input_tokens_details", "cached_tokens")),
    # messages and responses
    (PROMPT_TOKENS, ("usage", "input_tokens")),
    (COMPLETION_TOKENS, ("usage", "output_tokens")),
    (CACHED_TOKENS, ("usage", "input_tokens_details", "cached_tokens")),
    # chat completions, completions, embeddings
    (PROMPT_TOKENS, ("usage", "prompt_tokens")),
    (COMPLETION_TOKENS, ("usage", "completion_tokens")),
    (CACHED_TOKENS, ("usage", "prompt_tokens_details", "cached_tokens")),
)


def http_filters(settings: Settings, deployment: Deployment) -> list[hcm.HttpFilter]:
    """On the way back the order is reversed: usage is read before Lua removes its event."""
    strips = any(model.stream_usage is StreamUsage.STRIP for model in settings.policy.models)
    return [
        _named(BODY_LIMIT, buffer.Buffer(max_request_bytes=settings.max_body_bytes)),
        _named(EXT_PROC, _ext_proc(settings, deployment)),
        *([_named("envoy.filters.http.lua", _strip_usage(deployment))] if strips else []),
        # Holds the headers until the verdict is in: ext_proc lets them through, it is sent the body only.
        _named(BUFFER, buffer.Buffer(max_request_bytes=max(LARGEST_ANSWER_BYTES, 2 * settings.max_body_bytes))),
        _named("envoy.filters.http.header_mutation", _headers(settings)),
        _named("envoy.filters.http.sse_to_metadata", _usage_of_streams()),
        _named("envoy.filters.http.json_to_metadata", _usage_of_documents()),
        _named("envoy.filters.http.router", router.Router(suppress_envoy_headers=True)),
    ]


def changed_at_the_edge(settings: Settings, deployment: Deployment) -> list[mutation.HeaderMutation]:
    """What a client may not say: the headers that are ours, and who it is where another filter says that.

    Then the request gets an id of our own, by which its lease is settled whatever becomes of it.
    """
    removals = [_remove_prefix(prefix) for prefix in OWN_PREFIXES]
    identity = settings.identity
    if identity is not None and identity.header is not None and not deployment.peer_sets_identity:
        removals.append(_remove(identity.header))
    return [*removals, _overwrite(STREAM_HEADER, "%UNIQUE_ID%")]


def _named(name: str, message: betterproto2.Message) -> hcm.HttpFilter:
    return hcm.HttpFilter(name=name, typed_config=packed(message))


def _ext_proc(settings: Settings, deployment: Deployment) -> ext_proc.ExternalProcessor:
    """One message for each request: the body, with a few attributes. Nothing of the response."""
    skip = ext_proc.ProcessingModeHeaderSendMode.SKIP
    return ext_proc.ExternalProcessor(
        grpc_service=core.GrpcService(
            envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=SIDECAR),
            timeout=timeouts.verdict_stream(settings, deployment),
            retry_policy=_another_sidecar(),
        ),
        failure_mode_allow=settings.fail is FailMode.OPEN,
        message_timeout=timeouts.verdict(settings, deployment),
        processing_mode=ext_proc.ProcessingMode(
            request_header_mode=skip,
            response_header_mode=skip,
            request_body_mode=ext_proc.ProcessingModeBodySendMode.BUFFERED,
            response_body_mode=ext_proc.ProcessingModeBodySendMode.NONE,
            request_trailer_mode=skip,
            response_trailer_mode=skip,
        ),
        request_attributes=_attributes(settings),
        metadata_options=_namespaces(settings),
    )


def _another_sidecar() -> core.RetryPolicy:
    """Makes a dead sidecar invisible. The policy inside `envoy_grpc` would do nothing.

    Envoy keeps 64 KiB of a gRPC request for a retry: one with a longer body fails, hence `_eject_when_dead`.
    """
    return core.RetryPolicy(
        retry_on="unavailable,connect-failure,reset,refused-stream",
        num_retries=2,
        retry_back_off=core.BackoffStrategy(
            base_interval=timedelta(milliseconds=1), max_interval=timedelta(milliseconds=10)
        ),
        retry_host_predicate=[
            core.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=packed(previous_hosts.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=5,
    )


def _attributes(settings: Settings) -> list[str]:
    identity = settings.identity
    if identity is None or identity.header is None:
        return list(ATTRIBUTES)
    return [*ATTRIBUTES, header_attribute(identity.header)]


def _namespaces(settings: Settings) -> ext_proc.MetadataOptions:
    options = ext_proc.MetadataOptions(
        receiving_namespaces=ext_proc.MetadataOptionsMetadataNamespaces(untyped=[NAMESPACE])
    )
    identity = settings.identity
    if identity is not None and identity.metadata_namespace is not None:
        options.forwarding_namespaces = ext_proc.MetadataOptionsMetadataNamespaces(
            untyped=[identity.metadata_namespace]
        )
    return options


def lua_source() -> str:
    """The text of strip_usage.lua."""
    return resources.files(__package__).joinpath("strip_usage.lua").read_text(encoding="utf-8")


def _strip_usage(deployment: Deployment) -> lua.Lua:
    if deployment.lua_path is not None:
        return lua.Lua(default_source_code=core.DataSource(filename=deployment.lua_path))
    return lua.Lua(default_source_code=core.DataSource(inline_string=lua_source()))


def _headers(settings: Settings) -> header_mutation.HeaderMutation:
    identity = settings.identity
    secrets = ["authorization", "x-api-key"]
    if identity is not None and identity.header is not None:
        secrets.append(identity.header)
    return header_mutation.HeaderMutation(
        mutations=header_mutation.Mutations(
            request_mutations=[
                _remove_prefix("x-envoy-"),
                *map(_remove, secrets),
                _set(POOL_HEADER, POOL),
                _set("x-envoy-retry-on", RETRY_ON),
            ],
            response_mutations=[
                _set(POOL_HEADER, POOL),
                *(_set(header, key) for header, key in RATE_LIMIT_HEADERS.items()),
            ],
        )
    )


def _remove_prefix(prefix: str) -> mutation.HeaderMutation:
    return mutation.HeaderMutation(
        remove_on_match=mutation.HeaderMutationRemoveOnMatch(key_matcher=matcher.StringMatcher(prefix=prefix))
    )


def _remove(header: str) -> mutation.HeaderMutation:
    return mutation.HeaderMutation(remove=header.lower())


def _set(header: str, key: str) -> mutation.HeaderMutation:
    """From the verdict; where that has no such value, or an empty one, the header stays as it is."""
    return _overwrite(header, f"%DYNAMIC_METADATA({NAMESPACE}:{key})%")


def _overwrite(header: str, value: str) -> mutation.HeaderMutation:
    return mutation.HeaderMutation(
        append=core.HeaderValueOption(
            header=core.HeaderValue(key=header, value=value),
            append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        )
    )


def _usage_of_streams() -> sse_to_metadata.SseToMetadata:
    parser = json_parser.JsonContentParser(
        rules=[json_parser.JsonContentParserRuleConfig(rule=_rule(key, path)) for key, path in USAGE]
    )
    return sse_to_metadata.SseToMetadata(
        response_rules=sse_to_metadata.SseToMetadataProcessingRules(
            content_parser=core.TypedExtensionConfig(name="envoy.content_parsers.json", typed_config=packed(parser))
        )
    )


def _usage_of_documents() -> json_to_metadata.JsonToMetadata:
    return json_to_metadata.JsonToMetadata(
        response_rules=json_to_metadata.JsonToMetadataMatchRules(
            rules=[_rule(key, path) for key, path in USAGE],
            allow_content_types_regex=matcher.RegexMatcher(regex=r"(?i)application/json\s*(;.*)?"),
        )
    )


def _rule(key: str, path: Iterable[str]) -> json_to_metadata.JsonToMetadataRule:
    return json_to_metadata.JsonToMetadataRule(
        selectors=[json_to_metadata.JsonToMetadataSelector(key=name) for name in path],
        on_present=json_to_metadata.JsonToMetadataKeyValuePair(
            metadata_namespace=USAGE_NAMESPACE, key=key, type=json_to_metadata.JsonToMetadataValueType.NUMBER
        ),
    )
