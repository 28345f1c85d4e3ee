"""Benchmarks of the stores: throughput, latency, memory and accuracy, also against other libraries."""
