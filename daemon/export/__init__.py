"""Metrics exported by MQTT (spec.md §9.4): which, how they are written, when they are sent."""
