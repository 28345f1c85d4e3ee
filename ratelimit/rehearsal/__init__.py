"""Rehearsal: limits on an access log, before any request is refused.

`replay` says what limits would have refused, `suggest` which limits would fit. Both read the log with its own clock, and count with
the algorithms that the server counts with.
"""
