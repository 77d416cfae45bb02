from __future__ import annotations

import pytest

from extproc.fleet.loads import capacity, compare, divided, divisions
from tests.fleet.fleets import alone, mixed, split


def test_loads_are_shares_of_what_the_first_fleet_serves() -> None:
    trace = mixed(500)
    found = compare(trace, [alone(2), split()], [0.5, 1.5], processes=1)
    most = capacity(trace, alone(2))
    assert found.capacity_per_second == most
    assert [(row.fleet.name, row.load) for row in found.rows] == [
        ("alone", 0.5), ("split", 0.5), ("alone", 1.5), ("split", 1.5)
    ]  # fmt: skip
    assert [row.requests_per_second for row in found.rows[::2]] == pytest.approx([most / 2, 1.5 * most])
    served = [row.figures.served_per_second for row in found.rows[::2]]
    assert served == pytest.approx([most / 2, most], rel=0.15)  # the last requests take their time


def test_every_division_has_all_servers_and_none_without() -> None:
    found = [tuple(pool.servers for pool in fleet.pools) for fleet in divisions(split(short=3, long=1))]
    assert found == [(1, 3), (2, 2), (3, 1)]


def test_servers_are_divided_as_the_requests_are() -> None:
    """Nine in ten are short, but long ones take longer to read; one server for each would starve either."""
    best = divided(mixed(2000, per_second=40), split(short=1, long=5), processes=1)
    assert [pool.servers for pool in best.pools] == [4, 2]
