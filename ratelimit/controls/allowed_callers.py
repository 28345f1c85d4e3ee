"""Allowed callers: those that are neither charged nor refused, in every worker."""

from typing import ClassVar

from ratelimit.controls.blocks import Blocks


class AllowedCallers(Blocks):
    """Keeps who is not limited: in the store, so that all workers know it within 2 seconds.

    Their requests are neither charged nor refused, and get no rate-limit headers; a block for the same caller has no effect.
    The methods are those of `Blocks`: `set({"ip": "192.0.2.0/24"})`, `set({"token": "…"}, until=…, why="load test")`.
    """

    kind: ClassVar[str] = "allow"
