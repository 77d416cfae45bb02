"""Becomes a program that gets SIGTERM when its parent dies, however that dies.

Run by its path: `leash.py PARENT PROGRAM ...`.

A process of its own, since Python must not run between fork and exec in a process with threads. Imports little: it
runs before every child.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h

if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # stays in force over exec
    if os.getppid() != int(parent):  # it died before prctl took effect
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the program that the stack consists of
