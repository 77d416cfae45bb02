"""Generated from protos/ by `make protos`, never edited: the parts of Envoy's protocols that the sidecar speaks."""
