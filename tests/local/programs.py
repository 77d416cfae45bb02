"""Small programs that tests start as children."""

from __future__ import annotations

import sys

STAYS = "import time; print('here', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"


def python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


def is_running(pid: int) -> bool:
    """A zombie is not: it only waits for its parent to ask."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123 - /proc
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
