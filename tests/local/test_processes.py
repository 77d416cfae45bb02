from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from extproc.local import processes
from extproc.local.faults import StackError
from extproc.local.processes import Children
from tests.local.programs import STAYS, STUBBORN, is_running, python


async def forever() -> None:
    await asyncio.Event().wait()


async def test_leaving_stops_every_child(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        pids = [(await children.start("sim", python(STAYS), name=f"sim {index}")).process.pid for index in range(3)]
        assert all(map(is_running, pids))
    assert not any(map(is_running, pids))


async def test_children_stop_last_started_first(tmp_path: Path) -> None:
    said = tmp_path / "order"
    program = (
        "import signal, sys, time; "
        "signal.signal(15, lambda *_: (open({!r}, 'a').write({!r}), sys.exit())); print('here', flush=True); "
        "time.sleep(600)"
    )
    async with Children(tmp_path) as children:
        for name in "abc":
            child = await children.start(name, python(program.format(str(said), name)))
            await child.line("here")
    assert said.read_text() == "cba"


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    async with Children(tmp_path) as children:
        child = await children.start("stubborn", python(STUBBORN))
        await child.line("here")
    assert child.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("manners", [STAYS, STUBBORN], ids=["ends at once", "is killed"])
async def test_what_a_child_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manners: str) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    quiet = "stdout=subprocess.DEVNULL"
    program = (
        f"import subprocess; print('pid', subprocess.Popen({python(STAYS)!r}, {quiet}).pid, flush=True); {manners}"
    )
    async with Children(tmp_path) as children:
        child = await children.start("stubborn", python(program))
        grandchild = int((await child.line("pid ")).split()[1])
        await child.line("here")
        assert is_running(grandchild)
        pidfd = os.pidfd_open(grandchild)
    _wait_for_exit(pidfd)


async def test_a_death_ends_the_work_with_the_last_lines(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        await children.start("doomed", python("print('first'); raise SystemExit('no such thing')"), name="doomed 1")
        with pytest.raises(StackError) as caught:
            await children.while_alive(forever())
    assert str(caught.value).splitlines() == [
        "doomed 1 ended with exit code 1; its last lines:",
        *sorted(["  no such thing", "  first"], key=str(caught.value).index),
    ]


async def test_a_death_after_the_start_ends_the_wait(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        child = await children.start("victim", python(STAYS))
        assert await children.while_alive(child.line("here")) == "here"
        os.kill(child.process.pid, signal.SIGKILL)
        with pytest.raises(StackError, match=r"^victim was killed by SIGKILL; its last lines:\n  here$"):
            await children.until_over()


async def test_asking_to_stop_ends_the_work(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        children.ask_to_stop()
        await children.while_alive(forever())
        await children.until_over()


async def test_a_failure_of_the_work_itself_is_raised(tmp_path: Path) -> None:
    async def fail() -> None:
        raise StackError("the work")

    async with Children(tmp_path) as children:
        with pytest.raises(StackError, match="the work"):
            await children.while_alive(fail())


async def test_a_line_is_found_whether_it_came_before_or_comes_later(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        child = await children.start("talker", python(STAYS))
        assert await child.line("er") == "here"
        assert await child.line("he") == "here"


async def test_output_is_kept_in_a_file_of_the_childs_name(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        child = await children.start("sim", python(STAYS), name="sim org/model/0")
        await child.line("here")
    assert (tmp_path / "sim-org-model-0.log").read_bytes() == b"here\n"


async def test_output_goes_to_stderr_where_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with Children(tmp_path, echo=True) as children:
        await (await children.start("talker", python(STAYS))).line("here")
    assert capfd.readouterr().err == "[talker] here\n"


async def test_a_line_of_any_length_does_not_stop_the_reading(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        child = await children.start("talker", python(f"print('x' * {3 << 20}); {STAYS}"))
        assert await child.line("here") == "here"


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        with pytest.raises(StackError, match=r"^cannot run ghost \(/no/such/program\): No such file"):
            await children.start("ghost", ("/no/such/program",))


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    parent = f"""
import asyncio, pathlib
from extproc.local.processes import Children
async def main():
    async with Children(pathlib.Path({str(tmp_path)!r})) as children:
        child = await children.start("child", {python(STAYS)!r})
        await child.line("here")
        print(child.process.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    with subprocess.Popen(python(parent), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert is_running(pid)
        pidfd = os.pidfd_open(pid)
        process.kill()
    _wait_for_exit(pidfd)
    assert not is_running(pid)


def _wait_for_exit(pidfd: int) -> None:
    import select  # noqa: PLC0415 - for Linux only, like its one caller

    try:
        assert select.select([pidfd], [], [], 5)[0]
    finally:
        os.close(pidfd)
