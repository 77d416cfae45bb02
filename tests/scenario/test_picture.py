from __future__ import annotations

from pathlib import Path

import pytest

from extproc.scenario import fair_share, overload, picture
from extproc.scenario.outcomes import Ending
from extproc.scenario.running import Record
from tests.scenario.records import outcome, record, sample, standing

PNG = b"\x89PNG"


def records_of_overload() -> dict[str, Record]:
    waiting = outcome(first_token=None, end=5.0, ending=Ending.UNFINISHED)
    seen = [sample(float(at), {"guaranteed": standing(), "spot": standing(in_use=9)}) for at in range(10)]
    return {plan.name: record(plan, [outcome(), waiting, outcome("spot")], seen) for plan in overload.plans(10.0, 0)}


def records_of_fair_share() -> dict[str, Record]:
    tenants = {tenant.name: standing() for tenant in fair_share.TENANTS}
    seen = [sample(float(at), tenants) for at in range(10)]
    return {plan.name: record(plan, [outcome(name) for name in tenants], seen) for plan in fair_share.plans(10.0)}


def test_the_pictures_are_written_into_a_directory_that_is_made(tmp_path: Path) -> None:
    picture.overload(records_of_overload(), tmp_path / "new" / "overload.png")
    picture.fair_share(records_of_fair_share(), tmp_path / "new" / "fair-share.png")
    for path in (tmp_path / "new").iterdir():
        assert path.read_bytes().startswith(PNG)
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_runs_without_a_request_or_a_sample_are_drawn_all_the_same(tmp_path: Path) -> None:
    picture.overload({plan.name: record(plan) for plan in overload.plans(10.0, 0)}, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_smoothing_takes_the_mean_of_the_last_values() -> None:
    assert picture.smoothed([3, 0, 0, 6], 3) == pytest.approx([3, 1.5, 1, 2])
