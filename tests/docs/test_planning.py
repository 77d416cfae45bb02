"""The commands of the page on planning run as they stand, and print what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs.page import ROOT, blocks, commands, ran

PAGE = ROOT / "docs" / "planning.md"
SERVER = "http://127.0.0.1:8000"
EXAMPLE, PAPERS = "--like azure --rate 100 --out", "--papers"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the traces that the commands name."""
    made = tmp_path_factory.mktemp("planning")
    for name in ("conv.csv", "code.csv"):
        rows = [f"2023-11-16 18:{n // 60:02}:{n % 60:02}.5,{100 + n * 41 % 3000},{10 + n % 300}" for n in range(900)]
        (made / name).write_text("\n".join([AZURE.strip(), *rows, ""]))
    line = '{{"time": {}, "entitlement": "a", "source": "usage", "prompt_tokens": {}, "completion_tokens": 50}}'
    rows = [line.format(n / 4, 50 + n * 31 % 2500) for n in range(900)]
    (made / "requests.log").write_text("\n".join([*rows, ""]))
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    words = [sys.executable, "-u", "-m", "extproc.cli", "sim", "--port", "0", "--speed", "20"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        ready = re.search(r"http://\S+", process.stdout.readline())
        assert ready
        yield ready[0]
        process.terminate()


@pytest.fixture(scope="module")
def printed(folder: Path, server: str) -> dict[str, str]:
    with ThreadPoolExecutor(2) as both_cores:
        texts = both_cores.map(lambda command: run(command.replace(SERVER, server), folder), commands(PAGE))
        return dict(zip(commands(PAGE), texts, strict=True))


def run(command: str, folder: Path) -> str:
    done = ran(command, folder, seconds=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def of(printed: dict[str, str], words: str) -> list[str]:
    [found] = [text for command, text in printed.items() if words in command]
    return [line.rstrip() for line in found.splitlines()]


@pytest.mark.timeout(240)
def test_every_command_succeeds(printed: dict[str, str]) -> None:
    assert len(printed) == 6


def test_the_example_prints_what_is_shown(printed: dict[str, str]) -> None:
    [shown] = [block for block in blocks(PAGE, "text") if block.startswith("Servers for 100")]
    given = of(printed, EXAMPLE)
    assert [line for line in shown.splitlines() if line.rstrip() not in given] == []


def test_the_papers_table_is_the_one_shown(printed: dict[str, str]) -> None:
    [shown] = [block for block in blocks(PAGE, "text") if block.startswith("Servers that two pools save")]
    assert [line for line in shown.splitlines() if line.rstrip() not in of(printed, PAPERS)] == []


def test_the_case_in_which_splitting_loses_is_the_one_told(printed: dict[str, str]) -> None:
    assert of(printed, "--server-rates 1,2")[-1].startswith("Do not split: 1 + 1 servers instead of 1")


def test_the_picture_is_drawn(printed: dict[str, str], folder: Path) -> None:
    assert of(printed, EXAMPLE)[-1] == "Picture: pictures/plan.png"
    assert (folder / "pictures" / "plan.png").stat().st_size > 10_000
