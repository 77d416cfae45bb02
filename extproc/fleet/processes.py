"""Work in several processes at a time, whose progress is one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from queue import Queue
from typing import TypeVar

from extproc.fleet.simulation import Progress

REPORT_SECONDS = 0.2

T = TypeVar("T")


def in_processes(
    work: Callable[..., T], arguments: Sequence[tuple[object, ...]], processes: int, progress: Progress
) -> list[T]:
    """The results in order. `work` is a module's function; its last argument, added here, is a Progress."""
    if min(processes, len(arguments)) == 1:
        return [work(*one, progress) for one in arguments]
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that the progress bar's thread holds
    with context.Manager() as manager, ProcessPoolExecutor(min(processes, len(arguments)), context) as pool:
        reports: Queue[int] = manager.Queue()
        futures: list[Future[T]] = [pool.submit(_call, work, one, reports) for one in arguments]
        unfinished: set[Future[T]] = set(futures)
        while unfinished:
            _, unfinished = wait(unfinished, REPORT_SECONDS)
            while not reports.empty():
                progress(reports.get())
        return [future.result() for future in futures]


def _call(work: Callable[..., T], arguments: tuple[object, ...], reports: Queue[int]) -> T:
    return work(*arguments, reports.put)
