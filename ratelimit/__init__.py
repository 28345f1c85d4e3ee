"""Rate limiting for ASGI apps: all limits of a request are charged in one atomic step, in memory or on Redis."""

from ratelimit.asgi.decorators import exempt, limit
from ratelimit.asgi.headers import RATE_LIMIT_EXPOSE_HEADERS
from ratelimit.asgi.identity_cache import IdentityCache
from ratelimit.asgi.middleware import RateLimitMiddleware, limiter_of
from ratelimit.asgi.openapi import document_limits
from ratelimit.blocking import BlockingLimiter
from ratelimit.config.policies import Concurrency, Limit, Quota
from ratelimit.config.response_style import ResponseStyle
from ratelimit.config.schedule import Hours
from ratelimit.config.settings import RateLimitSettings
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.listeners import Listener
from ratelimit.errors import ConfigurationError, LimitExceeded, OverRelease, RateLimitError, StoreError
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity
from ratelimit.model.override import Override
from ratelimit.model.quota_usage import QuotaUsage
from ratelimit.model.rate import Rate
from ratelimit.model.service_limit import ServiceLimit
from ratelimit.outbound.pacer import Pacer
from ratelimit.outbound.throttle import Throttle
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.redis.store import RedisStore
from ratelimit.stores.urls import open_store

__all__ = [
    "BlockingLimiter",
    "Concurrency",
    "ConfigurationError",
    "Decision",
    "Hours",
    "Identity",
    "IdentityCache",
    "Limit",
    "LimitExceeded",
    "Limiter",
    "Listener",
    "MemoryStore",
    "OverRelease",
    "Override",
    "Pacer",
    "Quota",
    "QuotaUsage",
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
    "document_limits",
    "exempt",
    "limit",
    "limiter_of",
    "open_store",
]
