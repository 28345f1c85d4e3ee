"""Log lines that would come at every request: one now, and how many more there were with the next one."""

import logging
from collections.abc import Callable
from typing import Any

from ratelimit.clock import monotonic


class SampledLog:
    """Writes one line in `interval` seconds at most; the next line says how many were left out."""

    def __init__(self, logger: logging.Logger, interval: float, clock: Callable[[], float] = monotonic) -> None:
        self._logger, self._interval, self._clock = logger, interval, clock
        self._next_at, self._left_out = float("-inf"), 0

    def error(self, message: str, *args: Any) -> None:
        """Write an error, or count it."""
        now = self._clock()
        if now < self._next_at:
            self._left_out += 1
            return
        more = f" ({self._left_out} more such lines were left out)" if self._left_out else ""
        self._next_at, self._left_out = now + self._interval, 0
        self._logger.error("%s%s", message % args, more)
