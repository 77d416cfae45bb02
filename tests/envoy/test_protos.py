"""Our trimmed messages against Envoy's full ones: the same numbers and types, or the bytes mean other things."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import betterproto2
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from extproc.pb import als_pb2, ext_proc_pb2

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # as in extproc.envoy_config
    from envoy_data_plane.envoy.config.core import v3 as core
    from envoy_data_plane.envoy.data.accesslog import v3 as accesslog
    from envoy_data_plane.envoy.service.accesslog import v3 as als
    from envoy_data_plane.envoy.service.ext_proc import v3 as ext_proc
    from envoy_data_plane.envoy.type import v3 as envoy_type

# Messages of other packages, which our files declare beside the rest.
ELSEWHERE: dict[str, type[betterproto2.Message]] = {
    "AccessLogCommon": accesslog.AccessLogCommon,
    "HTTPAccessLogEntry": accesslog.HttpAccessLogEntry,
    "HTTPRequestProperties": accesslog.HttpRequestProperties,
    "HTTPResponseProperties": accesslog.HttpResponseProperties,
    "HeaderMap": core.HeaderMap,
    "HeaderValue": core.HeaderValue,
    "HeaderValueOption": core.HeaderValueOption,
    "HttpStatus": envoy_type.HttpStatus,
    "Metadata": core.Metadata,
    "ResponseFlags": accesslog.ResponseFlags,
    "StreamAccessLogsMessage.HTTPAccessLogEntries": als.StreamAccessLogsMessageHttpAccessLogEntries,
}
ENUMS = {
    "HeaderAppendAction": core.HeaderValueOptionHeaderAppendAction,
    "ResponseStatus": ext_proc.CommonResponseResponseStatus,
}
SAME_BYTES = {"enum": "int32"}


def messages(file: FileDescriptor) -> Iterator[Descriptor]:
    waiting = list(file.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        if not message.GetOptions().map_entry:
            yield message
            waiting.extend(message.nested_types)


OURS = {
    message.full_name: message for file in (ext_proc_pb2.DESCRIPTOR, als_pb2.DESCRIPTOR) for message in messages(file)
}


def envoys(message: Descriptor) -> type[betterproto2.Message]:
    name = message.full_name.removeprefix(f"{message.file.package}.")
    package = ext_proc if message.file.package == "envoy.service.ext_proc.v3" else als
    full: type[betterproto2.Message] = ELSEWHERE.get(name) or getattr(package, name)
    return full


def proto_type(field: FieldDescriptor) -> str:
    """The name that betterproto gives to the type."""
    if is_map(field):
        return "map"
    names = {
        getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
        for name in ("bool", "bytes", "enum", "int32", "int64", "message", "string", "uint32", "uint64")
    }
    return names[field.type]


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


@pytest.mark.parametrize("message", OURS.values(), ids=OURS.keys())
def test_every_field_has_envoys_number_and_type(message: Descriptor) -> None:
    full: Any = envoys(message)
    for field in message.fields:
        theirs = full._betterproto.meta_by_field_name[field.name]
        ours = (field.number, field.is_repeated and not is_map(field))
        assert ours == (theirs.number, theirs.repeated), field.name
        assert proto_type(field) in {theirs.proto_type, SAME_BYTES.get(theirs.proto_type)}, field.name


@pytest.mark.parametrize("message", OURS.values(), ids=OURS.keys())
def test_every_alternative_is_one_of_envoys(message: Descriptor) -> None:
    full: Any = envoys(message)
    for field in message.fields:
        if field.containing_oneof is not None:
            assert full._betterproto.meta_by_field_name[field.name].group == field.containing_oneof.name


def test_every_enum_value_has_envoys_number() -> None:
    for message in OURS.values():
        for enum in message.enum_types:
            assert set(enum.values_by_name) == set(ENUMS[enum.name].__members__)
            for name, value in enum.values_by_name.items():
                assert value.number == ENUMS[enum.name][name].value


@pytest.mark.parametrize(
    ("method", "ours"),
    [
        ("/envoy.service.ext_proc.v3.ExternalProcessor/Process", ext_proc_pb2.DESCRIPTOR),
        ("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs", als_pb2.DESCRIPTOR),
    ],
)
def test_the_services_have_envoys_names(method: str, ours: FileDescriptor) -> None:
    service, name = method.removeprefix("/").split("/")
    (found,) = ours.services_by_name.values()
    assert (found.full_name, [each.name for each in found.methods]) == (service, [name])


def test_a_message_of_envoys_reads_the_same() -> None:
    sent = ext_proc.ProcessingRequest(
        request_body=ext_proc.HttpBody(body=b"{}", end_of_stream=True), observability_mode=True
    )
    read = ext_proc_pb2.ProcessingRequest.FromString(bytes(sent))
    assert (read.request_body.body, read.request_body.end_of_stream) == (b"{}", True)
