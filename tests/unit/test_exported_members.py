"""The public names are pinned: a change to them is a change to this list."""

import ratelimit


def test_the_public_names() -> None:
    """`__all__` is sorted and holds these names, each of which has a docstring."""
    assert ratelimit.__all__ == sorted(ratelimit.__all__)
    assert set(ratelimit.__all__) == {
        *(
            "BlockingLimiter",
            "Concurrency",
            "Hours",
            "LimitExceeded",
            "OverRelease",
            "Override",
            "Pacer",
            "Quota",
            "QuotaUsage",
            "Throttle",
        ),
        *("ConfigurationError", "Decision", "Identity", "IdentityCache", "Limit", "Limiter", "Listener", "MemoryStore"),
        *("RATE_LIMIT_EXPOSE_HEADERS", "Rate", "RateLimitError", "RateLimitMiddleware", "RateLimitSettings"),
        *("RedisStore", "ResponseStyle", "ServiceLimit", "StoreError", "document_limits", "exempt", "limit"),
        *("limiter_of", "open_store"),
    }
    assert all(getattr(ratelimit, name).__doc__ or name.isupper() for name in ratelimit.__all__)
