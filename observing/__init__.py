"""Metrics, log context, traces, and the port at which a program shows how it is."""
