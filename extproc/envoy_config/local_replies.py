"""What Envoy itself says when it ends a request: the sidecar's error shapes, by status and response flag.

The order matters: the first rule that fits is applied. The sidecar's own refusals are local replies, too; they
carry a verdict and pass unchanged. So does its 429 to a request whose room was claimed: no rule fits.
"""

from __future__ import annotations

from dataclasses import dataclass

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from extproc.core.facts import Api
from extproc.core.metadata import VERDICT
from extproc.core.refusal import ErrorShape, Reason, Refusal, body, headers
from extproc.envoy_config.routes import exactly, metadata_matcher

JSON = "application/json"
RETRY_MS = 1_000  # Envoy cannot know when a server or a sidecar will be back
_BODY = core.SubstitutionFormatString(
    text_format_source=core.DataSource(inline_string="%LOCAL_REPLY_BODY%"), content_type=JSON
)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which local replies become which refusal: those with one of the flags, else those within the statuses."""

    refusal: Refusal
    flags: tuple[str, ...] = ()  # Envoy's response flags
    statuses: tuple[int, int] | None = None  # lowest and highest
    admitted: bool = False  # only after a verdict


RULES = (
    Rule(
        Refusal(413, Reason.BODY_TOO_LARGE, "the request body is too large"),
        statuses=(413, 413),
    ),
    Rule(
        Refusal(408, Reason.INVALID_REQUEST, "the request took too long to arrive"),
        statuses=(408, 408),
    ),
    Rule(
        Refusal(400, Reason.INVALID_REQUEST, "the request is not valid HTTP"),
        flags=("DPE",),
    ),
    Rule(
        Refusal(504, Reason.NO_SERVERS, "the model server did not answer in time", retry_ms=RETRY_MS),
        flags=("UT", "SI", "DT"),
    ),
    Rule(
        Refusal(503, Reason.NO_SERVERS, "no server of this model can be reached", retry_ms=RETRY_MS),
        flags=("UH", "UF", "NC", "UO", "URX", "NR"),
    ),
    Rule(
        Refusal(502, Reason.NO_SERVERS, "the model server broke the connection", retry_ms=RETRY_MS),
        flags=("UC", "UR", "UPE", "LR"),
    ),
    Rule(
        Refusal(404, Reason.NOT_FOUND, "there is nothing at this method and path"),
        statuses=(404, 404),
    ),
    Rule(
        Refusal(400, Reason.INVALID_REQUEST, "a JSON body is required"),
        statuses=(400, 400),
    ),
    Rule(
        Refusal(431, Reason.INVALID_REQUEST, "the request headers are too large"),
        statuses=(431, 431),
    ),
    Rule(
        Refusal(426, Reason.INVALID_REQUEST, "HTTP/1.1 or HTTP/2 is required"),
        statuses=(426, 426),
    ),
    Rule(
        Refusal(403, Reason.INVALID_REQUEST, "upgrades of the connection are not served"),
        statuses=(403, 403),
    ),
    Rule(  # a route that Envoy does not have yet
        Refusal(503, Reason.NO_SERVERS, "no server of this model can be reached", retry_ms=RETRY_MS),
        statuses=(500, 599),
        admitted=True,
    ),
    Rule(  # what is left: the sidecar failed, or did not answer in time
        Refusal(503, Reason.SHUTTING_DOWN, "token admission is not available", retry_ms=RETRY_MS),
        statuses=(500, 599),
    ),
)


def local_reply_config() -> hcm.LocalReplyConfig:
    own = accesslog.AccessLogFilter(or_filter=accesslog.OrFilter(filters=[_is_refusal(), _is_success()]))
    mappers = [hcm.ResponseMapper(filter=own, body_format_override=_BODY)]
    for rule in RULES:
        mappers.append(_mapper(rule, ErrorShape.ANTHROPIC))
        mappers.append(_mapper(rule, ErrorShape.OPENAI))
    return hcm.LocalReplyConfig(mappers=mappers)


def all_of(filters: list[accesslog.AccessLogFilter]) -> accesslog.AccessLogFilter:
    if len(filters) == 1:  # Envoy wants at least two to combine
        return filters[0]
    return accesslog.AccessLogFilter(and_filter=accesslog.AndFilter(filters=filters))


def with_metadata(key: str, value: matcher.ValueMatcher) -> accesslog.AccessLogFilter:
    """Requests whose verdict has this value."""
    return accesslog.AccessLogFilter(
        metadata_filter=accesslog.MetadataFilter(matcher=metadata_matcher(key, value), match_if_key_not_found=False)
    )


def _is_refusal() -> accesslog.AccessLogFilter:
    return with_metadata(VERDICT, exactly("refuse"))


def _is_success() -> accesslog.AccessLogFilter:
    """The list of models, which the sidecar answers itself."""
    return _status(accesslog.ComparisonFilterOp.LE, 299)


def _mapper(rule: Rule, shape: ErrorShape) -> hcm.ResponseMapper:
    filters = _conditions(rule)
    if shape is ErrorShape.ANTHROPIC:
        filters.insert(0, _on_messages())
    text = body(rule.refusal, shape).decode().replace("%", "%%")
    return hcm.ResponseMapper(
        filter=all_of(filters),
        status_code=rule.refusal.status,
        headers_to_add=[_header(name, value) for name, value in headers(rule.refusal) if name != "content-type"],
        body_format_override=core.SubstitutionFormatString(
            text_format_source=core.DataSource(inline_string=text), content_type=JSON
        ),
    )


def _conditions(rule: Rule) -> list[accesslog.AccessLogFilter]:
    conditions = [with_metadata(VERDICT, exactly("admit"))] if rule.admitted else []
    if rule.statuses is None:
        flags = accesslog.ResponseFlagFilter(flags=list(rule.flags))
        return [*conditions, accesslog.AccessLogFilter(response_flag_filter=flags)]
    lowest, highest = rule.statuses
    if lowest == highest:
        return [*conditions, _status(accesslog.ComparisonFilterOp.EQ, lowest)]
    conditions.append(_status(accesslog.ComparisonFilterOp.GE, lowest))
    conditions.append(_status(accesslog.ComparisonFilterOp.LE, highest))
    return conditions


def _status(comparison: accesslog.ComparisonFilterOp, status: int) -> accesslog.AccessLogFilter:
    # The key could override the value at run time; Envoy demands one.
    value = core.RuntimeUInt32(default_value=status, runtime_key="tokenpool.local_reply_status")
    return accesslog.AccessLogFilter(
        status_code_filter=accesslog.StatusCodeFilter(comparison=accesslog.ComparisonFilter(op=comparison, value=value))
    )


def _on_messages() -> accesslog.AccessLogFilter:
    prefix = route.HeaderMatcher(name=":path", string_match=matcher.StringMatcher(prefix=Api.MESSAGES.value))
    return accesslog.AccessLogFilter(header_filter=accesslog.HeaderFilter(header=prefix))


def _header(name: str, value: str) -> core.HeaderValueOption:
    return core.HeaderValueOption(
        header=core.HeaderValue(key=name, value=value),
        append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
