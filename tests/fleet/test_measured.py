from __future__ import annotations

import os
from pathlib import Path

import pytest

from extproc.fleet.measured import COLUMNS, Machine, MeasurementError, read
from extproc.sim.timing import MEASURED

REPOSITORY = Path(__file__).parents[2]
A100 = Machine("llama", "a100", 8)


def published() -> Path:
    """Not part of the repository: the directory of traces is named by TOKENPOOL_TRACES."""
    folder = os.environ.get("TOKENPOOL_TRACES")
    return (Path(folder) if folder else REPOSITORY.parent / "shared" / "data") / "splitwise_perf_model.csv"


def file_of(path: Path, *rows: tuple[object, ...], columns: tuple[str, ...] = COLUMNS) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in (columns, *rows)) + "\n")
    return path


def row(prompt: int, batch: int, read_ms: float, step_ms: float, hardware: str = "a100") -> tuple[object, ...]:
    return ("llama", hardware, 8, prompt, batch, 128, read_ms, step_ms)


def test_times_are_medians_by_prompt_and_by_batch(tmp_path: Path) -> None:
    path = file_of(
        tmp_path / "perf.csv",
        *(row(512, 1, ms, 40) for ms in (90, 100, 900)),
        *(row(1024, 1, 150, 99), row(512, 8, 700, 48), row(512, 1, 100, 40, hardware="h100")),
    )
    timing = read(path, A100)
    assert timing.prefill.points == ((512, 100), (1024, 150))
    assert timing.decode.points == ((1, 40), (8, 48))


def test_a_shorter_prompt_that_took_longer_counts_as_no_slower(tmp_path: Path) -> None:
    path = file_of(tmp_path / "perf.csv", row(128, 1, 60, 40), row(256, 1, 50, 40), row(512, 1, 55, 40))
    assert read(path, A100).prefill.points == ((128, 50), (256, 50), (512, 55))


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        pytest.param([row(1, 1, 1, 1)], COLUMNS[:-1], "line 1: .*no token_time", id="column"),
        pytest.param([("llama", "a100", 8, "many", 1, 1, 1, 1)], COLUMNS, "line 2: expected numbers", id="number"),
        pytest.param([("llama", "a100")], COLUMNS, "line 2: expected numbers", id="cells"),
        pytest.param([row(1, 1, 1, 1, hardware="h100")], COLUMNS, "it has llama:h100:8", id="machine"),
        pytest.param([row(1, 2, 1, 1)], COLUMNS, "no rows of batch_size 1", id="batch"),
    ],
)
def test_a_file_that_does_not_say_is_refused(
    tmp_path: Path, rows: list[tuple[object, ...]], columns: tuple[str, ...], message: str
) -> None:
    with pytest.raises(MeasurementError, match=message):
        read(file_of(tmp_path / "perf.csv", *rows, columns=columns), A100)


@pytest.mark.skipif(not published().exists(), reason="Splitwise's perf_model.csv is not here")
@pytest.mark.parametrize("hardware", ["a100", "h100"])
def test_the_shipped_times_are_those_of_the_published_file(hardware: str) -> None:
    found, shipped = read(published(), Machine("llama2-70b", f"{hardware}-80gb", 8)), MEASURED[hardware]
    for curve, expected in ((shipped.prefill, found.prefill), (shipped.decode, found.decode)):
        assert [x for x, _ in curve.points] == [x for x, _ in expected.points]
        assert [ms for _, ms in curve.points] == pytest.approx([ms for _, ms in expected.points], rel=0.01)
