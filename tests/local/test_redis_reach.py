from __future__ import annotations

import socket
from pathlib import Path

import pytest

from extproc.core.settings import without_password
from extproc.local.faults import StackError
from extproc.local.redis_reach import check, places


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1", [("127.0.0.1", 6379)]),
        ("rediss://u:p@h:7000/3", [("h", 7000)]),
        ("redis://[::1]:7000/0", [("::1", 7000)]),
        ("unix:///run/redis.sock?db=1", [("/run/redis.sock", 0)]),
        ("redis+sentinel://a,b:1/main/0", [("a", 26379), ("b", 1)]),
        ("redis+cluster://:p@a:1,b:2", [("a", 1), ("b", 2)]),
    ],
)
def test_a_url_names_its_places(url: str, expected: list[tuple[str, int]]) -> None:
    assert places(url) == expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:secret@h", "redis://:***@h"),
        ("rediss://me:secret@h", "rediss://me:***@h"),
        ("redis://me:se@cret@h", "redis://me:***@h"),
        ("redis://h/0?password=secret", "redis://h/0?***"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_a_listening_socket_passes(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        check(f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        check(f"unix://{tmp_path}/s")


def test_one_of_several_hosts_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check(f"redis+cluster://127.0.0.1:1,127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://:secret@127.0.0.1:1/0", r"^no Redis at redis://:\*\*\*@127.0.0.1:1/0 \(127.0.0.1:1: Connection re"),
        ("unix:///nowhere.sock", r"^no Redis at unix:///nowhere.sock \(/nowhere.sock: No such file"),
        ("redis://h:port/0", r"^redis://h:port/0: .*; correct `redis:`"),
    ],
    ids=["refused", "no socket", "no port"],
)
def test_where_nothing_listens_it_is_said_without_the_password(url: str, complaint: str) -> None:
    with pytest.raises(StackError, match=complaint):
        check(url)
