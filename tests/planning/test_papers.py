from __future__ import annotations

import pytest

from extproc.planning import papers
from extproc.planning.papers import Row


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.what: row for row in papers.rows()}


def test_what_was_published_is_told(rows: dict[str, Row]) -> None:
    assert rows["published in A (2604.08075)"].savings == {"azure": 0.419, "lmsys": 0.313}
    assert rows["published in B (2604.09613)"].savings == {"azure": 0.166, "lmsys": 0.385}


def test_the_papers_formula_with_the_papers_constants_gives_more_than_they_published(rows: dict[str, Row]) -> None:
    assert rows["A's closed form, the share it claims"].savings["azure"] == pytest.approx(0.92 * 0.75)
    formula = rows["A's whole servers"].savings
    assert formula["azure"] == pytest.approx(1 - 91 / 358)
    for what in ("published in A (2604.08075)", "published in B (2604.09613)"):
        assert all(rows[what].savings[trace] < saving - 0.3 for trace, saving in formula.items())


def test_the_correction_costs_where_the_tail_is_heavy(rows: dict[str, Row]) -> None:
    bare, corrected = rows["A's whole servers"].savings, rows["whole servers, corrected"].savings
    assert corrected["lmsys"] < bare["lmsys"] - 0.05
    assert corrected["azure"] == pytest.approx(bare["azure"], abs=0.01)


def test_without_reserved_room_nothing_is_saved_by_the_work_itself(rows: dict[str, Row]) -> None:
    paged = rows["A100, paged: closed form, corrected"].savings
    reserved = rows["A100, room reserved: closed form, corrected"].savings
    assert all(abs(saving) < 0.02 for saving in paged.values())
    assert all(saving > 0.4 for saving in reserved.values())


def test_the_table_has_a_column_for_each_trace(rows: dict[str, Row]) -> None:
    table = papers.table()
    assert list(table.columns) == ["", ">azure", ">lmsys"]
    assert [row[0] for row in table.rows] == list(rows)
    assert table.rows[0][1] == "41.9% (358 to 208)"
