"""Measured claims: one file per question, by layer; each figure is a ratio to something that runs side by side with it."""
