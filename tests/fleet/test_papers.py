from __future__ import annotations

import pytest

from extproc.fleet.papers import ALIKE, CONSTANTS, MEASURED, Case, Server, Traffic, one_case, paced, pool_of
from extproc.fleet.sizing import one_serves
from extproc.sim.timing import Timing
from extproc.traces import papers, published

SERVER = Server(Timing(), 1_048_576)
FEW = Traffic(requests=4000, requests_per_second=40.0, seed=0)


def case(trace: str, set_up: str) -> Case:
    return one_case(trace, set_up, FEW, SERVER, lambda _: None)


@pytest.mark.parametrize("server", [papers.SHORT, papers.LONG], ids=["short", "long"])
def test_a_server_with_the_papers_constants_serves_at_their_rate(server: papers.PublishedPool) -> None:
    trace = published.azure(8000, 1.0, seed=0)
    pool = pool_of("any", server, CONSTANTS, SERVER, trace)
    assert pool.timing == paced(server, float(trace.output_tokens.mean()))
    assert one_serves(trace, pool) == pytest.approx(server.requests_per_second, rel=0.02)


def test_with_the_papers_constants_splitting_saves_what_their_formula_says() -> None:
    found = case("azure", CONSTANTS)
    assert found.mixed.servers >= 40 / 2.8
    assert found.closed_form == pytest.approx(0.75, abs=0.02)
    assert found.saving == pytest.approx(found.closed_form, abs=0.12)  # whole servers: 15 against 4 and 1


def test_with_the_same_sequences_everywhere_nothing_is_saved() -> None:
    few, alike = case("azure", MEASURED), case("azure", ALIKE)
    assert few.saving > 0.2
    assert alike.saving <= 0
    assert alike.split_servers >= alike.mixed.servers
