"""The shared state in Redis or Valkey 7+: what admits and settles, and what the controller reads and writes."""

from extproc.redis_ledger.calls import connect
from extproc.redis_ledger.control import RedisControl
from extproc.redis_ledger.ledger import RedisLedger

__all__ = ["RedisControl", "RedisLedger", "connect"]
