"""Facts of one ordinary request, as the tests' starting point."""

from __future__ import annotations

from extproc.core.facts import Api, Category, RequestFacts
from extproc.core.observed import Decided, Settled

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01"
UNSAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00"
STARTED_NS = 1_700_000_000_000_000_000

ADMITTED = Decided(
    verdict="admit",
    reason="",
    status=200,
    started_ns=STARTED_NS,
    seconds=0.0004,
    model="llama",
    entitlement="acme",
    service_class="guaranteed",
    pool="short",
    preferred_pool="short",
    facts=RequestFacts(Api.CHAT, "llama", Category.PROSE, text_bytes=1000),
    prompt_estimate=250,
    budget_tokens=800,
    reserved_tokens=400,
    bytes_per_token=4.0,
)
UNAUTHORIZED = Decided(verdict="refuse", reason="unauthorized", status=401, started_ns=STARTED_NS, seconds=0.0001)
SETTLED = Settled(
    model="llama",
    entitlement="acme",
    pool="short",
    category="prose",
    source="usage",
    prompt_tokens=200,
    completion_tokens=300,
    prompt_estimate=250,
    reserved_tokens=400,
    status=200,
    ttft_seconds=0.3,
    duration_seconds=2.5,
    at_ns=STARTED_NS,
)
