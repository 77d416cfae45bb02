"""Measurements of this project itself."""
