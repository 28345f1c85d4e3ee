"""Tells objects that they are in a forked child now."""

import logging
import os
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

logger = logging.getLogger("ratelimit")

_hooks: list[WeakMethod[Callable[[], Any]]] = []


def call_after_fork(hook: Callable[[], Any]) -> None:
    """Call a bound method in every child that this process forks from now on, as long as its object lives there."""
    _hooks.append(WeakMethod(hook, _hooks.remove))


def _run_hooks() -> None:
    for known in _hooks.copy():  # An object may go meanwhile.
        if (hook := known()) is not None:
            try:
                hook()
            except Exception:
                logger.exception("what has to be done after a fork has failed [RL510]")


if hasattr(os, "register_at_fork"):  # Not on Windows, where nothing forks.
    os.register_at_fork(after_in_child=_run_hooks)
