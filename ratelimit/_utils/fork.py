"""Tells objects that they are in a forked child now."""

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

_hooks: list[WeakMethod[Callable[[], Any]]] = []


def call_after_fork(hook: Callable[[], Any]) -> None:
    """Call a bound method in every child that this process forks from now on, as long as its object lives there."""
    _hooks[:] = [known for known in _hooks if known() is not None]
    _hooks.append(WeakMethod(hook))


def _run_hooks() -> None:
    for known in _hooks:
        if (hook := known()) is not None:
            hook()


if hasattr(os, "register_at_fork"):  # Not on Windows, where nothing forks.
    os.register_at_fork(after_in_child=_run_hooks)
