"""Rate limiting for ASGI apps: every limit that applies, charged in one atomic step, and the truth in the answer."""

from ratelimit.decision import Decision, ServiceLimit
from ratelimit.decorators import exempt, limit
from ratelimit.errors import ConfigurationError, LimitExceeded, NotTaken, RateLimitError, StoreError
from ratelimit.http.headers import RATE_LIMIT_EXPOSE_HEADERS
from ratelimit.http.middleware import RateLimitMiddleware
from ratelimit.identity import Identity
from ratelimit.limiter import Limiter, Usage
from ratelimit.overrides import Override
from ratelimit.pacing import Pacer
from ratelimit.policy import Concurrency, Limit, Quota
from ratelimit.rate import Rate
from ratelimit.schedule import Hours
from ratelimit.settings import RateLimitSettings
from ratelimit.stores import MemoryStore, RedisStore, open_store
from ratelimit.style import ResponseStyle
from ratelimit.throttle import Throttle

__all__ = [
    "Concurrency",
    "ConfigurationError",
    "Decision",
    "Hours",
    "Identity",
    "Limit",
    "LimitExceeded",
    "Limiter",
    "MemoryStore",
    "NotTaken",
    "Override",
    "Pacer",
    "Quota",
    "RATE_LIMIT_EXPOSE_HEADERS",
    "Rate",
    "RateLimitError",
    "RateLimitMiddleware",
    "RateLimitSettings",
    "RedisStore",
    "ResponseStyle",
    "ServiceLimit",
    "StoreError",
    "Throttle",
    "Usage",
    "exempt",
    "limit",
    "open_store",
]
