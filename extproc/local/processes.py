"""Child processes that never outlive this one: started in order, watched, stopped in reverse.

What they print goes to a file each in the run directory; the last lines are kept to explain a death.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shlex
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from extproc.local import leash
from extproc.local.faults import StackError

T = TypeVar("T")

STOP_SECONDS = 10.0  # what a child has between SIGTERM and SIGKILL
KEPT_LINES = 200
SHOWN_LINES = 8
MAX_LINE_BYTES = 1 << 20


class Child:
    """One running program and what it printed last."""

    def __init__(self, kind: str, name: str, process: Process, log: Path, *, echo: bool) -> None:
        self.kind = kind
        self.name = name
        self.process = process
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._log = log
        self._echo = echo
        self._awaited: list[tuple[str, asyncio.Future[str]]] = []
        self._reading = asyncio.create_task(self._read())

    async def line(self, marker: str) -> str:
        """The first line that contains the marker. Waits for ever: a death ends the wait from outside."""
        for line in self.lines:
            if marker in line:
                return line
        found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._awaited.append((marker, found))
        return await found

    async def ended(self) -> int:
        """Waits for the exit and for the last output; a grandchild that holds the pipe is not waited for long."""
        code = await self.process.wait()
        await asyncio.wait([self._reading], timeout=1)
        return code

    async def stop(self) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
            except TimeoutError:
                self._kill_group()
        self._kill_group()  # what it started and left behind
        await self.ended()
        self._reading.cancel()

    def _kill_group(self) -> None:
        """The child and all that descend from it: it leads a session of its own."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def _read(self) -> None:
        output = self.process.stdout
        if output is None:
            return
        with self._log.open("ab", buffering=0) as log:
            while raw := await next_line(output):
                log.write(raw)
                self._note(raw.decode(errors="replace").rstrip())

    def _note(self, line: str) -> None:
        self.lines.append(line)
        if self._echo:
            print(f"[{self.name}] {line}", file=sys.stderr, flush=True)  # noqa: T201 - --verbose asks for it
        for marker, found in self._awaited:
            if marker in line and not found.done():
                found.set_result(line)


async def next_line(output: asyncio.StreamReader) -> bytes:
    while True:
        try:
            return await output.readline()
        except ValueError:  # longer than MAX_LINE_BYTES: asyncio drops it, and so do we
            continue


class Children:
    """All children, as an async context: leaving it stops them, last started first.

    Children of one kind that were started one after another are stopped together.
    """

    def __init__(self, run_dir: Path, *, echo: bool = False) -> None:
        self._run_dir = run_dir
        self._echo = echo
        self._started: list[Child] = []
        self._watches: list[asyncio.Task[None]] = []
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for watch in self._watches:
            watch.cancel()
        for _kind, children in itertools.groupby(reversed(self._started), key=lambda child: child.kind):
            await asyncio.gather(*(child.stop() for child in children))
        if not self._over.cancel():
            self._over.exception()  # a death nobody waited for is no news by now

    async def start(self, kind: str, command: tuple[str, ...], *, name: str = "") -> Child:
        """Raises StackError where the program cannot be run."""
        name = name or kind
        log = self._run_dir / f"{name.replace('/', '-').replace(' ', '-')}.log"
        try:
            process = await asyncio.create_subprocess_exec(
                *leashed(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                limit=MAX_LINE_BYTES,
                start_new_session=True,  # Ctrl-C reaches only us: we stop them, in order
            )
        except OSError as error:
            raise StackError(f"cannot run {name} ({shlex.quote(command[0])}): {error.strerror}") from error
        child = Child(kind, name, process, log, echo=self._echo)
        self._started.append(child)
        self._watches.append(asyncio.create_task(self._watch(child)))
        return child

    def ask_to_stop(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def while_alive(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of the work, or None once asked to stop. Raises StackError as soon as a child dies."""
        task = asyncio.create_task(work)
        try:
            either: tuple[asyncio.Future[Any], ...] = (task, self._over)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._over.done():
                return self._over.result()
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until_over(self) -> None:
        """Returns once asked to stop. Raises StackError as soon as a child dies."""
        await self._over

    async def _watch(self, child: Child) -> None:
        code = await child.ended()
        if not self._over.done():
            self._over.set_exception(StackError(obituary(child, code)))


def obituary(child: Child, code: int) -> str:
    cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    last = list(child.lines)[-SHOWN_LINES:]
    return "\n".join([f"{child.name} {cause}" + ("; its last lines:" if last else ""), *(f"  {line}" for line in last)])


def leashed(command: Sequence[str]) -> list[str]:
    """The command, made to end with this process. Raises OSError where there is no such program."""
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    if sys.platform != "linux":
        return [program, *command[1:]]
    return [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), program, *command[1:]]
