"""Traffic, as lengths and times: read from published traces and from the sidecar's own log, or drawn from quantiles."""
