"""For tests: of an app that is limited, and of stores that other people write. Nothing here is for production."""

from ratelimit.testing.assertions import assert_admitted, assert_limited, assert_quota_exceeded, assert_unlimited
from ratelimit.testing.clock import ManualClock
from ratelimit.testing.conformance import StoreConformance
from ratelimit.testing.switches import frozen_limits, limits_off

__all__ = [
    "ManualClock",
    "StoreConformance",
    "assert_admitted",
    "assert_limited",
    "assert_quota_exceeded",
    "assert_unlimited",
    "frozen_limits",
    "limits_off",
]
