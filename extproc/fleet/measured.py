"""Times measured on real servers, from a file in the columns of Splitwise's performance data.

Its publisher's is github.com/Mutinifni/splitwise-sim, data/perf_model.csv (MIT; ISCA 2024).
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from extproc.sim.timing import Curve, Timing

COLUMNS = (
    "model",
    "hardware",
    "tensor_parallel",
    "prompt_size",
    "batch_size",
    "token_size",
    "prompt_time",
    "token_time",
)

Samples = dict[int, list[float]]


class MeasurementError(ValueError):
    """Raised where a file does not say how fast such a server is. The message says what it has instead."""


@dataclass(frozen=True, slots=True)
class Machine:
    model: str
    hardware: str
    tensor_parallel: int

    def __str__(self) -> str:
        return f"{self.model}:{self.hardware}:{self.tensor_parallel}"


def read(path: Path, machine: Machine) -> Timing:
    """Medians: prefill by prompt at batch 1; decode by batch, of the prompt and answer tried with the most batches.

    Where a longer prompt or a larger batch took less time than a smaller one, the smaller counts as no slower: a part
    of a prompt must not take less than no time.

    Raises MeasurementError, and OSError where there is no such file.
    """
    rows = _rows(path)
    own = [row for row in rows if _machine(row) == machine]
    if not own:
        known = sorted({str(_machine(row)) for row in rows})
        raise MeasurementError(f"{path}: no rows of {machine}; it has {', '.join(known)}")
    prefill: Samples = defaultdict(list)
    by_shape: dict[tuple[str, str], Samples] = defaultdict(lambda: defaultdict(list))
    for row in own:
        batch = int(row["batch_size"])
        if batch == 1:
            prefill[int(row["prompt_size"])].append(float(row["prompt_time"]))
        by_shape[row["prompt_size"], row["token_size"]][batch].append(float(row["token_time"]))
    if not prefill:
        raise MeasurementError(f"{path}: {machine} has no rows of batch_size 1, which say how fast prompts are read")
    return Timing(_curve(prefill), _curve(max(by_shape.values(), key=len)))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise MeasurementError(f"{path}, line 1: expected the columns {', '.join(COLUMNS)}; no {missing[0]}")
        found = []
        for row in reader:
            try:
                _check(row)
            except (TypeError, ValueError) as error:
                raise MeasurementError(f"{path}, line {reader.line_num}: expected numbers ({error})") from error
            found.append(row)
    return found


def _check(row: Mapping[str, str]) -> None:
    for column in COLUMNS[2:6]:
        int(row[column])
    for column in COLUMNS[6:]:
        float(row[column])


def _machine(row: Mapping[str, str]) -> Machine:
    return Machine(row["model"], row["hardware"], int(row["tensor_parallel"]))


def _curve(samples: Samples) -> Curve:
    return Curve(tuple(_ascending((x, median(times)) for x, times in sorted(samples.items()))))


def _ascending(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    least = float("inf")
    for x, ms in reversed(list(points)):
        least = min(least, ms)
        found.append((x, least))
    return found[::-1]
