"""Benchmarks of the middleware: in memory, on Redis, and under a server."""
