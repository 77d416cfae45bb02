"""Envoy's messages to values and back: pure, and the only place that knows both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from extproc.core import metadata, refusal
from extproc.core.charge import Ended, Ending, Entry, Running, Unjudged
from extproc.core.settings import Identity
from extproc.core.ticket import decode
from extproc.pb import als_pb2, ext_proc_pb2
from extproc.verdicts import Admission, Answer, Call, Denial, Listing

Request = ext_proc_pb2.ProcessingRequest
Response = ext_proc_pb2.ProcessingResponse

ATTRIBUTES = "envoy.filters.http.ext_proc"  # the namespace Envoy puts request_attributes under
OVERWRITE = ext_proc_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
STREAM_ID = metadata.header_attribute(metadata.STREAM_HEADER)
MOVABLE_BYTES = 56 * 1024  # Envoy keeps 64 KiB of a gRPC stream for a retry: the body, and what is sent beside it
MOST_TOKENS = 10**9  # beyond any model; keeps the ledger's sums far from where its integers end
DETAILS = "tokenpool"  # response_code_details of a refusal, in Envoy's access logs


def call_of_body(message: Request, identity: Identity | None, traceparent: str) -> Call:
    """The one-message form: the body, with attributes beside it."""
    fields = message.attributes[ATTRIBUTES].fields if ATTRIBUTES in message.attributes else {}

    def text(name: str) -> str:
        return fields[name].string_value if name in fields else ""

    return Call(
        method=text("request.method") or "POST",
        path=text("request.path"),
        authorization=text("request.headers['authorization']"),
        x_api_key=text("request.headers['x-api-key']"),
        content_encoding=text("request.headers['content-encoding']"),
        identity=_identity(message, identity, text),
        traceparent=traceparent,
        stream_id=text(STREAM_ID),
        movable=len(message.request_body.body) <= MOVABLE_BYTES,
        body=message.request_body.body,
    )


def call_of_headers(message: Request, identity: Identity | None, traceparent: str) -> Call:
    """The classic form's first message: headers, the body yet to come."""
    found = {h.key.lower(): h.value or h.raw_value.decode("latin-1") for h in message.request_headers.headers.headers}
    return Call(
        method=found.get(":method", ""),
        path=found.get(":path", ""),
        authorization=found.get("authorization", ""),
        x_api_key=found.get("x-api-key", ""),
        content_encoding=found.get("content-encoding", ""),
        identity=_identity(message, identity, lambda name: found.get(name[len("request.headers['") : -2], "")),
        traceparent=traceparent,
    )


def with_body(call: Call, message: Request) -> Call:
    return replace(call, body=message.request_body.body)


def _identity(message: Request, identity: Identity | None, attribute: Callable[[str], str]) -> str:
    if identity is None:
        return ""
    if identity.header is not None:
        return attribute(metadata.header_attribute(identity.header))
    spaces = message.metadata_context.filter_metadata
    namespace, key = identity.metadata_namespace or "", identity.metadata_key or ""
    return spaces[namespace].fields[key].string_value if namespace in spaces and key in spaces[namespace] else ""


def proceed_to_body() -> Response:
    """Answers the classic form's headers message: go on, the body decides."""
    response = Response()
    response.request_headers.response.SetInParent()
    return response


def response_of(verdict: Answer, *, classic: bool = False, headers_phase: bool = False) -> Response:
    """The one answer to a request. `classic`: headers were sent before, and header mutations are heeded."""
    if isinstance(verdict, Denial):
        return _refused(_denial(verdict))
    if isinstance(verdict, Listing):
        return _refused(_immediate(200, [("content-type", "application/json")], verdict.body))
    return _admission(verdict, classic=classic, headers_phase=headers_phase)


def ending_of(denial: Denial) -> Response:
    """Ends a request that was admitted before. What Envoy knows of its lease stays as it is: settlement needs it."""
    return _denial(denial)


def _admission(verdict: Admission, *, classic: bool, headers_phase: bool) -> Response:
    response = Response()
    common = response.request_headers.response if headers_phase else response.request_body.response
    common.clear_route_cache = True  # honoured only beside a header mutation
    mutations = [("x-tokenpool-pool", verdict.pool)]
    if verdict.body is not None:
        common.body_mutation.body = verdict.body
        if classic:  # Envoy rejects a mutated body that its content-length does not fit
            mutations.append(("content-length", str(len(verdict.body))))
    _set_headers(common.header_mutation, mutations)
    _write_metadata(response, verdict)
    return response


def _write_metadata(response: Response, verdict: Admission) -> None:
    fields = response.dynamic_metadata.fields[metadata.NAMESPACE].struct_value.fields
    fields[metadata.VERDICT].string_value = "admit"
    fields[metadata.ROUTE].string_value = metadata.cluster_name(verdict.model, verdict.pool)
    fields[metadata.POOL].string_value = verdict.pool
    fields[metadata.TICKET].string_value = verdict.ticket.encode()
    fields[metadata.RETRY_ON].string_value = "retriable-status-codes" if verdict.retry else ""
    fields[metadata.STRIP_USAGE].bool_value = verdict.strip_usage
    for header, value in verdict.limits:
        fields[metadata.RATE_LIMIT_HEADERS[header]].string_value = value


def _denial(denial: Denial) -> Response:
    body = refusal.body(denial.refusal, denial.shape)
    return _immediate(denial.refusal.status, refusal.headers(denial.refusal), body)


def _refused(response: Response) -> Response:
    """Nothing is to be settled."""
    response.dynamic_metadata.fields[metadata.NAMESPACE].struct_value.fields[metadata.VERDICT].string_value = "refuse"
    return response


def _immediate(status: int, headers: Sequence[tuple[str, str]], body: bytes) -> Response:
    response = Response()
    answer = response.immediate_response
    answer.status.code = status
    answer.body = body
    answer.details = DETAILS
    _set_headers(answer.headers, headers)
    return response


def _set_headers(mutation: ext_proc_pb2.HeaderMutation, headers: Iterable[tuple[str, str]]) -> None:
    for key, value in headers:
        option = mutation.set_headers.add(append_action=OVERWRITE)
        option.header.key = key
        option.header.raw_value = value.encode("utf-8", "replace")


def entries(batch: als_pb2.StreamAccessLogsMessage) -> Iterator[Entry]:
    """What a batch of the access log says, less what needs no answer."""
    for entry in batch.http_logs.log_entry:
        common = entry.common_properties
        spaces = common.metadata.filter_metadata
        fields = spaces[metadata.NAMESPACE].fields if metadata.NAMESPACE in spaces else {}
        ticket = decode(fields[metadata.TICKET].string_value) if metadata.TICKET in fields else None
        if ticket is not None and common.intermediate_log_entry:
            yield Running(ticket)
        elif ticket is not None:
            usage = spaces[metadata.USAGE_NAMESPACE] if metadata.USAGE_NAMESPACE in spaces else Struct()
            yield Ended(ticket, _ending(entry, usage))
        elif not fields and not common.intermediate_log_entry:
            lease = entry.request.request_headers.get(metadata.STREAM_HEADER)
            if lease and not _refused_by_envoy(entry):
                yield Unjudged(lease)


def _refused_by_envoy(entry: als_pb2.HTTPAccessLogEntry) -> bool:
    """No path, no body, too large a body: the sidecar was never asked, there is no lease to look for."""
    return 400 <= entry.response.response_code.value < 500  # noqa: PLR2004 - HTTP's client errors


def _ending(entry: als_pb2.HTTPAccessLogEntry, usage: Struct) -> Ending:
    common, response = entry.common_properties, entry.response
    first_byte = response.response_body_bytes > 0  # headers of a stream come before its first token
    return Ending(
        status=response.response_code.value,
        prompt_tokens=_count(usage, metadata.PROMPT_TOKENS),
        completion_tokens=_count(usage, metadata.COMPLETION_TOKENS),
        cached_tokens=_count(usage, metadata.CACHED_TOKENS),
        first_byte=first_byte,
        response_bytes=response.response_body_bytes,
        attempts=max(1, common.upstream_request_attempt_count),
        ttft_seconds=_seconds(common.time_to_first_upstream_rx_byte)
        if common.HasField("time_to_first_upstream_rx_byte")
        else None,
        duration_seconds=_seconds(common.duration),
    )


def _count(usage: Struct, key: str) -> int | None:
    """A token count; what a server writes that cannot be one is as if it had not been said."""
    if key not in usage.fields or usage.fields[key].WhichOneof("kind") != "number_value":
        return None
    value = usage.fields[key].number_value
    return int(value) if 0 <= value <= MOST_TOKENS else None


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
