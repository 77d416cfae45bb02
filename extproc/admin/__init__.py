"""The admin HTTP server: metrics, health, readiness, and the state of all models as JSON."""

from extproc.admin.document import document
from extproc.admin.server import Admin, Owner, start_admin

__all__ = ["Admin", "Owner", "document", "start_admin"]
