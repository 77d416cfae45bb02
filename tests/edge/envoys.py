"""The messages that Envoy sends to the sidecar, as Envoy builds them."""

from __future__ import annotations

import json
from typing import Any

from extproc.core import metadata
from extproc.pb import als_pb2, ext_proc_pb2
from extproc.wire import ATTRIBUTES, Request, Response

HELLO = {"model": "llama", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20}
CHAT = "/v1/chat/completions"


def as_bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def body_message(body: Any = HELLO, path: str = CHAT, key: str = "sk-acme", **headers: str) -> Request:
    """The one message of the form that `tokenpool envoy` writes; further headers by their names with `_` for `-`."""
    message = Request()
    message.request_body.body = as_bytes(body)
    message.request_body.end_of_stream = True
    fields = message.attributes[ATTRIBUTES].fields
    fields["request.method"].string_value = "POST"
    fields["request.path"].string_value = path
    given = {"authorization": f"Bearer {key}" if key else "", **{k.replace("_", "-"): v for k, v in headers.items()}}
    for name, value in given.items():
        if value:
            fields[metadata.header_attribute(name)].string_value = value
    return message


def headers_message(method: str, path: str, *, end_of_stream: bool, raw: bool = True, **headers: str) -> Request:
    """The classic form's first message; Envoy 1.40 gives values as bytes, older ones as text."""
    message = Request()
    message.request_headers.end_of_stream = end_of_stream
    found = {":method": method, ":path": path, **{k.replace("_", "-"): v for k, v in headers.items()}}
    for name, value in found.items():
        header = message.request_headers.headers.headers.add(key=name)
        if raw:
            header.raw_value = value.encode()
        else:
            header.value = value
    return message


def bare_body(body: Any) -> Request:
    """The classic form's second message."""
    return Request(request_body=ext_proc_pb2.HttpBody(body=as_bytes(body), end_of_stream=True))


def verdict_of(response: Response) -> dict[str, Any]:
    """The verdict's dynamic metadata as plain values."""
    fields = response.dynamic_metadata.fields[metadata.NAMESPACE].struct_value.fields
    return {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in fields.items()}


def headers_of(response: Response) -> dict[str, str]:
    """The headers that a response sets, of whichever kind it is."""
    kind = response.WhichOneof("response")
    if kind == "immediate_response":
        mutation = response.immediate_response.headers
    else:
        mutation = getattr(response, str(kind)).response.header_mutation
    return {option.header.key: option.header.raw_value.decode() for option in mutation.set_headers}


def log_entry(
    ticket: str | None, usage: dict[str, Any] | None = None, *, status: int = 200, response_bytes: int = 500
) -> als_pb2.HTTPAccessLogEntry:
    entry = als_pb2.HTTPAccessLogEntry()
    entry.response.response_code.value = status
    entry.response.response_body_bytes = response_bytes
    entry.common_properties.duration.FromMilliseconds(1500)
    spaces = entry.common_properties.metadata.filter_metadata
    if ticket is not None:
        spaces[metadata.NAMESPACE].update({metadata.TICKET: ticket, metadata.VERDICT: "admit"})
    if usage is not None:
        spaces[metadata.USAGE_NAMESPACE].update(usage)
    return entry


def log_batch(*entries: als_pb2.HTTPAccessLogEntry) -> als_pb2.StreamAccessLogsMessage:
    message = als_pb2.StreamAccessLogsMessage()
    message.http_logs.log_entry.extend(entries)
    return message
