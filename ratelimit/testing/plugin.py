"""Fixtures for pytest, available once the package is installed (`-p no:ratelimit` disables them)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from ratelimit.config.policies import Concurrency, Limit, Quota
from ratelimit.config.settings import RateLimitSettings
from ratelimit.errors import ConfigurationError
from ratelimit.limiter import Limiter
from ratelimit.stores.memory import MemoryStore
from ratelimit.testing import toggles
from ratelimit.testing.clock import ManualClock

_SECTIONS: Final[dict[type, str]] = {Limit: "limits", Quota: "quotas", Concurrency: "concurrency"}


@pytest.fixture
def ratelimit_clock() -> ManualClock:
    """Return the clock of `freeze_limits` and `make_limiter`, which stands still until it is moved."""
    return ManualClock()


@pytest.fixture
def disable_limits() -> Iterator[None]:
    """Let every limiter admit everything, for tests of something else."""
    with toggles.disable_limits():
        yield


@pytest.fixture
def freeze_limits(ratelimit_clock: ManualClock) -> Iterator[Callable[..., ManualClock]]:
    """Return a function that gives apps fresh counters on `ratelimit_clock`, and returns that clock."""
    with ExitStack() as stack:

        def freeze(*apps: Any) -> ManualClock:
            return stack.enter_context(toggles.freeze_limits(*apps, clock=ratelimit_clock))

        yield freeze


@pytest.fixture
def make_limiter(ratelimit_clock: ManualClock) -> Callable[..., Limiter]:
    """Return a function that makes limiters in memory on `ratelimit_clock`, from settings or from policies."""

    def make(*policies: RateLimitSettings | Limit | Quota | Concurrency) -> Limiter:
        settings, *more = policies or (RateLimitSettings(),)
        if not isinstance(settings, RateLimitSettings) or more:
            settings = _settings_of(policies)
        return Limiter(settings, MemoryStore(clock=ratelimit_clock), ratelimit_clock)

    return make


def _settings_of(policies: tuple[Any, ...]) -> RateLimitSettings:
    sections: dict[str, list[Any]] = {}
    for policy in policies:
        if type(policy) not in _SECTIONS:
            raise ConfigurationError(f"make_limiter takes settings, or policies, not {policy!r:.100} [RL316]")
        sections.setdefault(_SECTIONS[type(policy)], []).append(policy)
    return RateLimitSettings(**sections)
