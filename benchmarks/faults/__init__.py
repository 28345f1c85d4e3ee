"""What the limiter does while its store fails: `make faults`."""
