"""The public face is pinned: a change to it is a change to this list."""

import ratelimit


def test_the_public_face_is_what_it_says() -> None:
    """`__all__` is sorted, complete and nothing else."""
    assert ratelimit.__all__ == sorted(ratelimit.__all__)
    assert set(ratelimit.__all__) == {
        *("Concurrency", "Hours", "LimitExceeded", "NotTaken", "Override", "Pacer", "Quota", "Throttle", "Usage"),
        *("ConfigurationError", "Decision", "Identity", "Limit", "Limiter", "MemoryStore"),
        *("RATE_LIMIT_EXPOSE_HEADERS", "Rate", "RateLimitError", "RateLimitMiddleware", "RateLimitSettings"),
        *("RedisStore", "ResponseStyle", "ServiceLimit", "StoreError", "exempt", "limit", "open_store"),
    }
    assert all(getattr(ratelimit, name).__doc__ or name.isupper() for name in ratelimit.__all__)
