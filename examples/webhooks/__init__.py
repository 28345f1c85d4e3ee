"""Webhooks from a queue, delivered at an even pace by several workers."""
