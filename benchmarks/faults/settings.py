"""The settings of all workers of the fleet."""

from typing import Final

from ratelimit import Limit, Quota, RateLimitSettings

LIMIT: Final = 200
"""Requests of the token in any window."""

WINDOW: Final = 2
"""Seconds of the window."""

TIMEOUT: Final = 0.1
"""The `store_timeout`, in seconds."""


def settings(url: str) -> RateLimitSettings:
    """Return the settings: 200 requests in any two seconds for each token, and a quota that counts served requests."""
    return RateLimitSettings(
        store=url,
        store_timeout=TIMEOUT,
        limits=[Limit(name="token", rate=f"{LIMIT}/{WINDOW}s", per="token")],
        quotas=[Quota(name="served", limit=10**9, period="month", per="org")],
    )
