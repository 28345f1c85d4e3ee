"""Benchmarks of the limiters for outbound calls."""
