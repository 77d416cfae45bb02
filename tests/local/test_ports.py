from __future__ import annotations

import socket

import pytest

from extproc.local.faults import StackError
from extproc.local.ports import Wanted, authority, reachable_host, settle


def test_zero_becomes_a_free_port_each() -> None:
    ports = settle([Wanted("--port", "127.0.0.1", 0)] * 5)
    assert len(set(ports)) == 5
    assert 0 not in ports


def test_a_settled_port_can_be_listened_on() -> None:
    [port] = settle([Wanted("--port", "127.0.0.1", 0)])
    with socket.create_server(("127.0.0.1", port)) as server:
        assert server.getsockname()[1] == port


@pytest.mark.parametrize("listener", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_names_its_option(listener: str) -> None:
    with socket.create_server((listener, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"^port {port} is taken; stop .* or choose another with --admin-port$"):
            settle([Wanted("--admin-port", "127.0.0.1", port)])


def test_a_port_shared_by_reuseport_counts_as_taken() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken, pytest.raises(StackError, match="is taken"):
        settle([Wanted("--port", "127.0.0.1", taken.getsockname()[1])])


def test_the_same_port_for_two_things_is_refused() -> None:
    [port] = settle([Wanted("--port", "127.0.0.1", 0)])
    with pytest.raises(StackError, match="--admin-port"):
        settle([Wanted("--port", "127.0.0.1", port), Wanted("--admin-port", "127.0.0.1", port)])


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"], ids=["address", "name"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(StackError, match=f"cannot listen on {host}: .*--host"):
        settle([Wanted("--port", host, 0)])


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")], ids=["IPv4", "IPv6"]
)
def test_an_authority_is_what_a_url_has(host: str, expected: str) -> None:
    assert authority(host, 80) == expected


@pytest.mark.parametrize(("listen", "reach"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1")])
def test_a_wildcard_is_reached_over_loopback(listen: str, reach: str) -> None:
    assert reachable_host(listen) == reach
