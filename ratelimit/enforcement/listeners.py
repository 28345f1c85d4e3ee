"""Listeners: objects of the app that get to know what is decided, and cannot change it."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from ratelimit._utils.sampling import SampledLog
from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.enforcement.events import (
    CorrectionEvent,
    DecisionEvent,
    OverrideEvent,
    ReloadEvent,
    StoreCallEvent,
    StoreEvent,
)
from ratelimit.errors import ConfigurationError

logger = logging.getLogger("ratelimit")

MAX_PENDING: Final = 1000
"""Calls of async listeners that may be under way; an event beyond that is left out."""

_LOG_INTERVAL_S: Final = 10.0
_METHODS: Final = ("on_decision", "on_correction", "on_store", "on_store_call", "on_override", "on_reload")

Heard = Awaitable[None] | None
"""What a listener's method returns; what it awaits goes on in the background."""


class Listener:
    """Derive from this, and define what you want to know: `Limiter(settings, listeners=[MyListener()])`.

    The methods are called on the path of a request, so they must be quick, and do no I/O. One that raises is logged (at
    most a line in ten seconds) and changes no answer. An async method goes on in the background.
    """

    def attach(self, limiter: Any) -> None:
        """Get to know the limiter that this listens to; called once, when the limiter is made."""

    def on_decision(self, event: DecisionEvent) -> Heard:
        """Get to know a decision."""

    def on_correction(self, event: CorrectionEvent) -> Heard:
        """Get to know a correction of a decision's units."""

    def on_store(self, event: StoreEvent) -> Heard:
        """Get to know that the store became unavailable, or is available again."""

    def on_store_call(self, event: StoreCallEvent) -> Heard:
        """Get to know how long a request to the store took, and how it ended."""

    def on_override(self, event: OverrideEvent) -> Heard:
        """Get to know that other overrides or blocks hold."""

    def on_reload(self, event: ReloadEvent) -> Heard:
        """Get to know that the settings were loaded again."""


class Listeners:
    """Calls the listeners that define a method; `failed` counts those calls that raised."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        for listener in listeners:
            if not isinstance(listener, Listener):
                raise ConfigurationError(
                    f"listeners: must derive from ratelimit.Listener, got {listener!r:.100} [RL315]"
                )
        self._methods = {name: _defined(listeners, name) for name in _METHODS}
        self.hears_decisions = bool(self._methods["on_decision"])
        self.hears_store_calls = bool(self._methods["on_store_call"])
        self.hears_corrections = bool(self._methods["on_correction"])
        self.failed = 0
        self._log, self._tasks = SampledLog(logger, _LOG_INTERVAL_S), BackgroundTasks()

    def decision(self, event: DecisionEvent) -> None:
        """Hand on a decision."""
        self._call("on_decision", event)

    def correction(self, event: CorrectionEvent) -> None:
        """Hand on a correction."""
        self._call("on_correction", event)

    def store(self, event: StoreEvent) -> None:
        """Hand on a change of the store's state."""
        self._call("on_store", event)

    def store_call(self, event: StoreCallEvent) -> None:
        """Hand on how a request to the store ended."""
        self._call("on_store_call", event)

    def override(self, event: OverrideEvent) -> None:
        """Hand on a change of overrides or blocks."""
        self._call("on_override", event)

    def reload(self, event: ReloadEvent) -> None:
        """Hand on what became of new settings."""
        self._call("on_reload", event)

    def _call(self, name: str, event: object) -> None:
        for method in self._methods[name]:
            try:
                heard = method(event)
                if inspect.isawaitable(heard) and len(self._tasks) < MAX_PENDING:
                    self._tasks.spawn(self._wait_for(name, heard))
                elif inspect.iscoroutine(heard):
                    heard.close()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - logged
                self._note(name, error)

    async def _wait_for(self, name: str, heard: Awaitable[None]) -> None:
        try:
            await heard
        except Exception as error:  # noqa: BLE001 - logged
            self._note(name, error)

    def _note(self, name: str, error: BaseException) -> None:
        self.failed += 1
        self._log.error("a listener's %s failed with %s [RL506]", name, type(error).__name__)


def _defined(listeners: Sequence[Listener], name: str) -> list[Callable[[Any], Heard]]:
    return [getattr(each, name) for each in listeners if getattr(type(each), name) is not getattr(Listener, name)]
