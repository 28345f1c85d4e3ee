"""Rate limiting for ASGI apps: every limit that applies, charged in one atomic step, and the truth in the answer."""

from ratelimit.decision import Decision, ServiceLimit
from ratelimit.decorators import exempt, limit
from ratelimit.errors import ConfigurationError, RateLimitError, StoreError
from ratelimit.http.headers import RATE_LIMIT_EXPOSE_HEADERS
from ratelimit.http.middleware import RateLimitMiddleware
from ratelimit.identity import Identity
from ratelimit.limiter import Limiter
from ratelimit.policy import Limit
from ratelimit.rate import Rate
from ratelimit.settings import RateLimitSettings, ResponseStyle
from ratelimit.stores import MemoryStore, RedisStore, open_store

__all__ = [
    "ConfigurationError",
    "Decision",
    "Identity",
    "Limit",
    "Limiter",
    "MemoryStore",
    "RATE_LIMIT_EXPOSE_HEADERS",
    "Rate",
    "RateLimitError",
    "RateLimitMiddleware",
    "RateLimitSettings",
    "RedisStore",
    "ResponseStyle",
    "ServiceLimit",
    "StoreError",
    "exempt",
    "limit",
    "open_store",
]
