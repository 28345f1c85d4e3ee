"""The edge: all that knows HTTP."""
