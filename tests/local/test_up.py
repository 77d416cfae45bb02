"""`tokenpool up` as people run it."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.local.programs import is_running

EXAMPLE = Path(__file__).parents[2] / "tokenpool.yaml"
ANY_PORTS = ("--port", "0", "--admin-port", "0", "--envoy-admin-port", "0")
READY = re.compile(r"tokenpool is ready: http://127\.0\.0\.1:\d+/v1\n")


@dataclass
class Up:
    process: subprocess.Popen[str]
    first_line: str
    rest: str = ""
    descendants: set[int] = field(default_factory=set)

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.rest)
        assert match, self.rest
        return match.group(1)


@contextmanager
def running(*options: str) -> Iterator[Up]:
    """Ready. Killed at the end where the test has not ended it."""
    command = [sys.executable, "-m", "extproc.cli", "up", "--config", str(EXAMPLE), *ANY_PORTS, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            up = Up(process, process.stdout.readline())
            while "Ctrl-C" not in up.rest and process.poll() is None:
                up.rest += process.stdout.readline()
            up.descendants = descendants(process.pid)
            yield up
        finally:
            process.kill()


def descendants(pid: int) -> set[int]:
    children = {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return children.union(*(descendants(child) for child in children))


def wait_for_exits(pids: set[int], seconds: float) -> None:
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert select.select([pidfd], [], [], seconds)[0], f"{pid} is still running"
        os.close(pidfd)


def test_it_says_when_it_is_ready_answers_and_leaves_nothing() -> None:
    with running("--workers", "2") as up:
        assert READY.fullmatch(up.first_line)
        answer = subprocess.run([*shlex.split(up.found(r"(curl .*)")), "-sS"], capture_output=True, check=True)
        assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 32
        status = shlex.split(up.found(r"(tokenpool status .*)"))
        shown = subprocess.run([sys.executable, "-m", "extproc.cli", *status[1:]], capture_output=True, check=True)
        assert b"acme-chat" in shown.stdout
        run_dir = Path(up.found(r"logs +(\S+)"))
        assert run_dir.is_dir()
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(30) == 0
        assert not any(map(is_running, up.descendants))
        assert not run_dir.exists()


def test_ctrl_c_before_it_is_ready_leaves_nothing() -> None:
    command = [sys.executable, "-m", "extproc.cli", "up", "--config", str(EXAMPLE), *ANY_PORTS, "--verbose"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("[valkey] ")
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "")
    assert not any(map(is_running, started))


@pytest.mark.parametrize(("program", "name"), [("/valkey-server", "valkey"), ("extproc.cli\0sim", "sim .*")])
def test_a_death_is_reported_and_stops_everything(program: str, name: str) -> None:
    with running("--workers", "1") as up:
        victim = next(pid for pid in up.descendants if program in Path(f"/proc/{pid}/cmdline").read_text())
        os.kill(victim, signal.SIGKILL)
        _, complaint = up.process.communicate(timeout=30)
        assert up.process.returncode == 1
        assert re.match(rf"tokenpool: {name} was killed by SIGKILL", complaint)
        assert not any(map(is_running, up.descendants))


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_nothing_outlives_a_killed_parent() -> None:
    with running("--workers", "2") as up:
        up.process.kill()
        wait_for_exits(up.descendants, 15)
        shutil.rmtree(up.found(r"logs +(\S+)"))  # nobody was left to do it
