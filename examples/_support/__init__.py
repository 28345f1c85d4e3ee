"""Shared parts of the examples that start servers."""
