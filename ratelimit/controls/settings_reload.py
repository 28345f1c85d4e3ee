"""Reloading: other settings take effect while the app runs, or the ones before stay."""

from collections.abc import Callable
from typing import Final, Literal

from ratelimit.clock import Clock
from ratelimit.config.settings import RateLimitSettings
from ratelimit.errors import ConfigurationError
from ratelimit.resolver.resolver import PolicyResolver

FIXED_FIELDS: Final = (
    "store",
    "store_timeout",
    "max_keys",
    "key_prefix",
    "hash_key",
    "hashed_dimensions",
    "partitions",
    "statistics",
    "max_body",
    "trusted_proxies",
)
"""Fields that need a restart: the store, the names of all keys, and what is read of a request before its policies are known."""

Result = Literal["applied", "unchanged", "rejected"]


class SettingsReload:
    """Checks other settings, and lets them hold in one step.

    Counters go on whose policy keeps its name; that of a limit with another period begins with what the one before holds.
    Requests under way finish under the rules that they began
    with. `on_result` gets to know what came of it, with the error.
    """

    def __init__(self, resolver: PolicyResolver, clock: Clock, on_result: Callable[[Result, str | None], None]) -> None:
        self._resolver, self._clock, self._on_result = resolver, clock, on_result

    def apply(self, settings: RateLimitSettings) -> bool:
        """Let these settings hold, and return whether anything is different.

        Settings that cannot hold, or that change a field which needs a restart, raise `ConfigurationError` with the field's
        name, and those before stay.
        """
        if not isinstance(settings, RateLimitSettings):
            raise ConfigurationError(f"settings: must be RateLimitSettings, got {settings!r:.100} [RL122]")
        if settings == self._resolver.settings:
            self._on_result("unchanged", None)
            return False
        try:
            self._check(settings)
            self._resolver.reload(settings, self._clock() // 1000)
        except ConfigurationError as error:
            self._on_result("rejected", str(error))
            raise
        self._on_result("applied", None)
        return True

    async def poll(self) -> None:
        """Load the watched file where it has changed; never fails because of what it holds."""
        file = self._resolver.settings.watched_file
        if file is None:
            return
        try:
            changed = file.changed()
        except ValueError as error:  # `ConfigurationError`, or pydantic's `ValidationError`.
            self._on_result("rejected", str(error))
            return
        if changed is not None:
            try:
                self.apply(changed)
            except ConfigurationError:
                return  # It was reported.

    def _check(self, settings: RateLimitSettings) -> None:
        for name in FIXED_FIELDS:
            if getattr(settings, name) != getattr(self._resolver.settings, name):
                raise ConfigurationError(f"{name}: cannot change while the app runs; restart it [RL123]")
