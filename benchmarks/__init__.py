"""Measured claims: one file per question, each a ratio to something run side by side in the same process."""
