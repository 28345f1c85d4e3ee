"""Tools for tests of rate-limited apps and of third-party stores. Not for production."""

from ratelimit.testing.assertions import assert_admitted, assert_limited, assert_quota_exceeded, assert_unlimited
from ratelimit.testing.clock import ManualClock
from ratelimit.testing.conformance import StoreConformance
from ratelimit.testing.toggles import disable_limits, freeze_limits

__all__ = [
    "ManualClock",
    "StoreConformance",
    "assert_admitted",
    "assert_limited",
    "assert_quota_exceeded",
    "assert_unlimited",
    "disable_limits",
    "freeze_limits",
]
