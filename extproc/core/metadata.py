"""The dynamic metadata by which the sidecar and Envoy speak of one request.

Written by a verdict; read by Envoy's routes, header mutations and access log; back in the entry that settles it.
"""

NAMESPACE = "tokenpool"
VERDICT = "verdict"  # "admit" | "refuse"; absent: the sidecar never saw the request
ROUTE = "route"  # cluster_name(model, pool): which route, hence which cluster, takes the request
POOL = "pool"
TICKET = "ticket"  # all that settlement needs, opaque to Envoy; absent: nothing to settle
RETRY_ON = "retry_on"  # value of x-envoy-retry-on: "retriable-status-codes" near the threshold, else ""
STRIP_USAGE = "strip_usage"  # true: remove the usage event that the sidecar asked for

# Response header <- metadata key, on admitted answers.
RATE_LIMIT_HEADERS = {
    "x-ratelimit-limit-requests": "limit_requests",
    "x-ratelimit-remaining-requests": "remaining_requests",
    "x-ratelimit-reset-requests": "reset_requests",
    "x-ratelimit-limit-tokens": "limit_tokens",
    "x-ratelimit-remaining-tokens": "remaining_tokens",
    "x-ratelimit-reset-tokens": "reset_tokens",
}

USAGE_NAMESPACE = "tokenpool.usage"  # written by json_to_metadata and sse_to_metadata
PROMPT_TOKENS = "prompt_tokens"
COMPLETION_TOKENS = "completion_tokens"
CACHED_TOKENS = "cached_tokens"  # of the prompt


def cluster_name(model: str, pool: str) -> str:
    """The Envoy cluster of a model's pool."""
    return f"{model}/{pool}"


# Set by Envoy on every request, whatever the client sent: names the lease, also where no verdict came in time.
STREAM_HEADER = "x-tokenpool-stream"

# What Envoy tells the sidecar beside the body. Headers are named as Envoy's attributes name them.
ATTRIBUTES = (
    "request.method",
    "request.path",
    "request.headers['authorization']",
    "request.headers['x-api-key']",
    "request.headers['content-encoding']",
    f"request.headers['{STREAM_HEADER}']",
)


def header_attribute(name: str) -> str:
    """The attribute that carries one request header."""
    return f"request.headers['{name.lower()}']"
