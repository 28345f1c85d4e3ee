"""What all workers of the fleet are limited by."""

from typing import Final

from ratelimit import Limit, Quota, RateLimitSettings

LIMIT: Final = 200
WINDOW: Final = 2
TIMEOUT: Final = 0.1


def settings(url: str) -> RateLimitSettings:
    """One token may do 200 requests in any two seconds; a quota counts what was served."""
    return RateLimitSettings(
        store=url,
        store_timeout=TIMEOUT,
        limits=[Limit(name="token", rate=f"{LIMIT}/{WINDOW}s", per="token")],
        quotas=[Quota(name="served", limit=10**9, period="month", per="org")],
    )
