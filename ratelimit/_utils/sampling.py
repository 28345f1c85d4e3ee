"""Log lines that would come at every request: one now, and how many more there were with the next one; or one for ever."""

import logging
from collections.abc import Callable
from typing import Any, Final

from ratelimit.clock import monotonic

_MAX_LINES: Final = 1000
"""Lines that a `LogOnce` writes at most."""


class LogOnce:
    """Writes each line once, however often it would come: what lies in a store is read again and again."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._written: set[tuple[Any, ...]] = set()

    def error(self, message: str, *args: Any) -> None:
        """Write an error, unless it was written before."""
        line = message, *args
        if line not in self._written and len(self._written) < _MAX_LINES:
            self._written.add(line)
            self._logger.error(message, *args)


class SampledLog:
    """Writes one line in `interval` seconds at most; the next line says how many were left out."""

    def __init__(self, logger: logging.Logger, interval: float, clock: Callable[[], float] = monotonic) -> None:
        self._logger, self._interval, self._clock = logger, interval, clock
        self._next_at, self._left_out = float("-inf"), 0

    def error(self, message: str, *args: Any, exc_info: bool = False) -> None:
        """Write an error (with `exc_info`, its traceback), or count it."""
        self._write(logging.ERROR, message, args, exc_info=exc_info)

    def warning(self, message: str, *args: Any) -> None:
        """Write a warning, or count it."""
        self._write(logging.WARNING, message, args)

    def _write(self, level: int, message: str, args: tuple[Any, ...], *, exc_info: bool = False) -> None:
        now = self._clock()
        if now < self._next_at:
            self._left_out += 1
            return
        more = f" ({self._left_out} more such lines were left out)" if self._left_out else ""
        self._next_at, self._left_out = now + self._interval, 0
        self._logger.log(level, "%s%s", message % args, more, exc_info=exc_info)
