"""What `tokenpool up` starts on this machine: Valkey, simulated servers, the sidecar and Envoy."""
