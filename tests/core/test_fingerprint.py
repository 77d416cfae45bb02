"""The fingerprint of a request: the same for what is asked again, another for what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.request import SAMPLED_BYTES, fingerprint

LONG = bytes(range(256)) * 512


@given(body=st.binary(max_size=4 * SAMPLED_BYTES))
def test_the_same_body_has_the_same_short_fingerprint(body: bytes) -> None:
    assert fingerprint(body) == fingerprint(bytes(bytearray(body)))
    assert len(fingerprint(body)) == 16
    assert fingerprint(body).isalnum()


@given(bodies=st.lists(st.binary(max_size=SAMPLED_BYTES), unique=True, max_size=20))
def test_different_bodies_have_different_fingerprints(bodies: list[bytes]) -> None:
    assert len({fingerprint(body) for body in bodies}) == len(bodies)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(b"x" + LONG[1:], id="another beginning"),
        pytest.param(LONG[:-1] + b"x", id="another end"),
        pytest.param(LONG + b"x", id="longer"),
        pytest.param(LONG[:SAMPLED_BYTES] + LONG[-SAMPLED_BYTES:], id="without its middle"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_long_body_differs_by_either_end_and_by_its_length(other: bytes) -> None:
    assert fingerprint(other) != fingerprint(LONG)


@pytest.mark.parametrize("size", [0, 1, SAMPLED_BYTES - 1, SAMPLED_BYTES, SAMPLED_BYTES + 1, 2 * SAMPLED_BYTES])
def test_no_byte_of_a_body_that_is_short_enough_is_left_out(size: int) -> None:
    body = LONG[:size]
    changed = {fingerprint(body[:at] + b"\xff\xfe" + body[at + 2 :]) for at in range(0, size, 997)}
    assert len(changed | {fingerprint(body)}) == len(range(0, size, 997)) + 1
