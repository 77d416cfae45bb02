"""docs/traces.md tells of every field and option, and its figures are those of this build."""

from __future__ import annotations

import re

import click
import numpy as np
import pytest

from extproc.cli.traffic import traffic_options
from extproc.request_log import Line
from extproc.traces.published import LIKE, azure, from_quantiles
from extproc.traces.reading import FORMATS
from extproc.traces.table import Table
from tests.docs.page import ROOT

PAGE = (ROOT / "docs" / "traces.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]


def test_every_field_of_the_request_log_is_told_and_no_other() -> None:
    told = [name for cell in first_cells(section("The request log")) for name in re.findall(r"`(\w+)`", cell)]
    assert told == [*Line.__struct_fields__]


def test_every_option_is_told_and_no_other() -> None:
    @click.command()
    @traffic_options
    def command() -> None: ...

    told = {name for cell in first_cells(section("Naming one")) for name in re.findall(r"`(--[\w-]+)", cell)}
    assert told == {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("form", [one for one in FORMATS if isinstance(one, Table)], ids=lambda form: form.name)
def test_every_format_is_told_with_its_columns(form: Table) -> None:
    assert f"| {form.name} | `{','.join(form.columns)}` |" in section("Files")


@pytest.mark.parametrize("name", LIKE)
def test_the_lengths_that_are_told_are_those_that_are_drawn(name: str) -> None:
    column = list(LIKE).index(name) + 2
    rows = [line.split("|") for line in section("Drawn requests").splitlines() if line.startswith("|")]
    trace = from_quantiles(*LIKE[name], 200_000, 100.0, 2)
    for label, lengths in (("prompt, mean", trace.prompt_tokens), ("answer, mean", trace.output_tokens)):
        [row] = [row for row in rows if label in row[1]]
        told = [int(figure) for figure in re.findall(r"\d+", row[column].replace(",", "").replace(")", ""))]
        drawn = [lengths.mean(), *np.quantile(lengths, (0.5, 0.9, 0.99))]
        assert told == pytest.approx(drawn, rel=0.05)


def test_the_mean_total_that_is_told_is_the_drawn_ones() -> None:
    assert "1,606 for Azure" in section("Drawn requests")
    assert azure(500_000, 10.0, 1).total_tokens.mean() == pytest.approx(1606, rel=0.01)
