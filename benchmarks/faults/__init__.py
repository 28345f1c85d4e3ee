"""Measures the limiter while its store fails: `make faults`."""
