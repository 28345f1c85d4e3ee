"""Where counters are kept: in this process (`memory`) or on Redis (`redis`), behind one interface (`base`)."""

from ratelimit.stores.base import Store
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.messages import Operation, SharedMap, StoreReply, StoreRequest
from ratelimit.stores.redis.store import RedisStore
from ratelimit.stores.urls import open_store

__all__ = ["MemoryStore", "Operation", "RedisStore", "SharedMap", "Store", "StoreReply", "StoreRequest", "open_store"]
