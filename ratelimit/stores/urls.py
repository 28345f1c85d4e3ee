"""Which store a URL opens."""

from ratelimit.clock import Clock
from ratelimit.errors import ConfigurationError
from ratelimit.model.store_url import REDIS_SCHEMES, SCHEMES
from ratelimit.stores.memory import MAX_KEYS, MemoryStore
from ratelimit.stores.redis.store import RedisStore


def open_store(
    url: str, *, clock: Clock | None = None, timeout: float = 0.1, max_keys: int = MAX_KEYS
) -> MemoryStore | RedisStore:
    """Return the store that `url` names; nothing is connected yet.

    `memory://`, `redis://`, `rediss://`, `unix://`, `redis+cluster://host,host` or `redis+sentinel://host,host/name`.
    `timeout` is in seconds and bounds each call to a Redis store, `max_keys` the counters of a memory store. A URL that names no store raises `ConfigurationError`.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        return MemoryStore(clock=clock, max_keys=max_keys)
    if scheme in REDIS_SCHEMES:
        return RedisStore(url, clock=clock, timeout=timeout)
    # The URL may hold a password and is not repeated.
    raise ConfigurationError(
        f"store: the URL must begin with one of {', '.join(f'{each}://' for each in SCHEMES)} [RL120]"
    )
