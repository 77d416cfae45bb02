from __future__ import annotations

import click
import pytest

from extproc.cli.options import worker_addresses


@pytest.mark.parametrize(
    ("given", "workers", "expected"),
    [
        (["127.0.0.1:50051"], 1, ("127.0.0.1:50051",)),
        (["0.0.0.0:50051"], 3, ("0.0.0.0:50051", "0.0.0.0:50052", "0.0.0.0:50053")),
        (["[::1]:50051"], 2, ("[::1]:50051", "[::1]:50052")),
        (["unix:/run/side.sock"], 1, ("unix:/run/side.sock",)),
        (["unix:/run/side.sock"], 2, ("unix:/run/side-0.sock", "unix:/run/side-1.sock")),
        (["unix:/a", "unix:/b"], None, ("unix:/a", "unix:/b")),
        (["h:1", "h:2"], 2, ("h:1", "h:2")),
    ],
)
def test_each_worker_has_an_address(given: list[str], workers: int | None, expected: tuple[str, ...]) -> None:
    assert worker_addresses(given, workers) == expected


@pytest.mark.parametrize(
    ("given", "workers"),
    [
        (["h:1", "h:2"], 3),
        (["h:0"], 1),
        (["h:65536"], 1),
        (["h:65535"], 2),
        ([":1"], 1),
        (["h:x"], 1),
        (["unix:relative"], 1),
        ([""], 1),
    ],
)
def test_what_cannot_be_listened_on_is_wrong_usage(given: list[str], workers: int) -> None:
    with pytest.raises(click.UsageError):
        worker_addresses(given, workers)
