"""Tokenpool: token budgets, pools and entitlements for fleets of vLLM servers, as a sidecar of Envoy."""
