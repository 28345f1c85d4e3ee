"""Fixtures for pytest, there by themselves once the package is installed (`-p no:ratelimit` turns them off)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ratelimit.errors import ConfigurationError
from ratelimit.limiter import Limiter
from ratelimit.policy import Concurrency, Limit, Quota
from ratelimit.settings import RateLimitSettings
from ratelimit.stores import MemoryStore
from ratelimit.testing.clock import ManualClock
from ratelimit.testing.switches import frozen_limits as freeze
from ratelimit.testing.switches import limits_off as switch_off

_SECTIONS: dict[type, str] = {Limit: "limits", Quota: "quotas", Concurrency: "concurrency"}


@pytest.fixture
def ratelimit_clock() -> ManualClock:
    """Return a clock that stands still; `frozen_limits` and `make_limiter` go by it."""
    return ManualClock()


@pytest.fixture
def limits_off() -> Iterator[None]:
    """Let every limiter admit everything, for tests that are about something else."""
    with switch_off():
        yield


@pytest.fixture
def frozen_limits(ratelimit_clock: ManualClock) -> Iterator[Callable[..., ManualClock]]:
    """Return a function that gives the apps it is handed fresh counters on `ratelimit_clock`, which it returns."""
    with ExitStack() as stack:

        def apply(*apps: Any) -> ManualClock:
            return stack.enter_context(freeze(*apps, clock=ratelimit_clock))

        yield apply


@pytest.fixture
def make_limiter(ratelimit_clock: ManualClock) -> Callable[..., Limiter]:
    """Return a maker of limiters in memory on `ratelimit_clock`: `make_limiter(settings)`, or of policies."""

    def make(*policies: RateLimitSettings | Limit | Quota | Concurrency) -> Limiter:
        settings, *more = policies or (RateLimitSettings(),)
        if not isinstance(settings, RateLimitSettings) or more:
            sections: dict[str, list[Any]] = {}
            for policy in policies:
                if type(policy) not in _SECTIONS:
                    raise ConfigurationError(f"make_limiter takes settings, or policies, not {policy!r:.100}")
                sections.setdefault(_SECTIONS[type(policy)], []).append(policy)
            settings = RateLimitSettings(**sections)
        return Limiter(settings, MemoryStore(clock=ratelimit_clock), ratelimit_clock)

    return make
