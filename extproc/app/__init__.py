"""The composition root: builds the parts of a worker and of the supervisor, and owns their start and end."""

from extproc.app.faults import SidecarError
from extproc.app.options import SidecarOptions, WorkerOptions
from extproc.app.supervisor import run_sidecar
from extproc.app.worker import run_worker

__all__ = ["SidecarError", "SidecarOptions", "WorkerOptions", "run_sidecar", "run_worker"]
