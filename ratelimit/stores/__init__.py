"""Where counters are kept."""

from ratelimit.clock import Clock
from ratelimit.errors import ConfigurationError
from ratelimit.stores.base import Answer, Notes, Op, Request, Store
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.redis import RedisStore
from ratelimit.stores.topology import SCHEMES

__all__ = ["Answer", "MemoryStore", "Notes", "Op", "RedisStore", "Request", "Store", "open_store"]


def open_store(url: str, *, clock: Clock | None = None, timeout: float = 0.1) -> MemoryStore | RedisStore:
    """Return the store that `url` names.

    `memory://`, `redis://`, `rediss://`, `unix://`, `redis+cluster://host,host` or `redis+sentinel://host,host/name`.
    Connects to nothing. `timeout` is in seconds and bounds each call to a store outside this process. An address of
    another kind raises `ConfigurationError`.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        return MemoryStore(clock=clock)
    if scheme in SCHEMES:
        return RedisStore(url, clock=clock, timeout=timeout)
    # The address itself may hold a password and is not repeated.
    raise ConfigurationError(f"store: the address begins with none of memory, {', '.join(SCHEMES)}")
