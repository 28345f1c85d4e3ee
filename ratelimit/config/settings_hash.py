"""The hash of settings: of two hashes in a fleet, one is out of date."""

from functools import lru_cache
from hashlib import sha256

from ratelimit.config.settings import RateLimitSettings

_SECRET = {"store", "hash_key"}


def settings_hash(settings: RateLimitSettings) -> str:
    """Return eight digits that stand for settings, in every process the same."""
    return _hash(settings.model_dump_json(exclude=_SECRET, fallback=repr_of_function))


@lru_cache(16)
def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def repr_of_function(value: object) -> str:
    """Return the name of a function in the settings: its address would differ in each process."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
