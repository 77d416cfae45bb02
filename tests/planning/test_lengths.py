from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planning.lengths import MOST_KINDS, of_trace
from tests.planning.needs import lengths_of, like, trace_of

some = st.lists(st.tuples(st.integers(1, 9999), st.integers(0, 9999)), min_size=1, max_size=50)


@given(some, st.integers(0, 20_000))
def test_a_threshold_divides_all_requests(pairs: list[tuple[int, int]], threshold: int) -> None:
    lengths = lengths_of(*pairs)
    short, long = lengths.between(0, threshold), lengths.between(threshold, lengths.longest)
    share = lengths.share_between(0, threshold)
    assert share == pytest.approx(sum(p + o <= threshold for p, o in pairs) / len(pairs))
    parts = [(part, one) for part, one in ((short, share), (long, 1 - share)) if part is not None]
    total = sum(one * part.mean(part.total_tokens) for part, one in parts)
    assert total == pytest.approx(lengths.mean(lengths.total_tokens))


def test_no_requests_between_are_no_lengths() -> None:
    assert lengths_of((10, 10), (100, 100)).between(50, 100) is None


def test_a_long_trace_is_thinned_but_for_its_tail() -> None:
    trace = like("lmsys", 50_000)
    lengths = of_trace(trace)
    assert len(lengths.share) == MOST_KINDS
    assert lengths.mean(lengths.total_tokens) == pytest.approx(trace.total_tokens.mean())
    assert lengths.longest == trace.total_tokens.max()
    assert lengths.share_between(8192, 65_536) == pytest.approx(np.mean(trace.total_tokens > 8192))


def test_a_heavier_tail_stretches_the_longest_tenth_and_no_more() -> None:
    lengths = lengths_of(*((100 * n, 0) for n in range(1, 11)), (2000, 0))
    heavier = lengths.with_heavier_tail(2.0, 2500)
    assert heavier.total_tokens.tolist() == pytest.approx([*(100.0 * n for n in range(1, 11)), 2500.0])


def test_a_trace_without_requests_has_no_lengths() -> None:
    with pytest.raises(ValueError, match="no requests"):
        of_trace(trace_of((1, 1)).first(0))
