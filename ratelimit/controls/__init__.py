"""What operators change while the app runs, in all workers: overrides of rates, and blocked callers."""
