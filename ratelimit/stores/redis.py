"""The Redis store: counters that all workers share."""

import asyncio
from typing import Final

import redis.asyncio
from redis.asyncio.cluster import RedisCluster

from ratelimit.clock import Clock
from ratelimit.errors import StoreError
from ratelimit.stores.base import Answer, Notes, Request, Store
from ratelimit.stores.lanes import ClusterLane, Lane, ServerLane
from ratelimit.stores.topology import connect

_VERSION: Final = "#version"
"""The field of a book of notes that tells when it was changed; no name begins with `#`."""

_STRANGE: Final = "the store answered something that was not asked for"

_PAGE: Final = 1000
"""Notes that are read in one call."""


class RedisStore(Store):
    """Count in a Redis (or Valkey) that all workers share; each batch of requests is one atomic script call.

    `url` is `redis://`, `rediss://` or `unix://`, with user, password and database as redis-py reads them, or several
    servers: `redis+cluster://host,host` or `redis+sentinel://host,host/name-of-the-master`. `clock`
    returns integer microseconds; with none, the server's own time counts. A call that takes longer than `timeout`
    seconds raises `StoreTimeout`. Nothing is connected before the first call, and the store may be used from several
    event loops: each has its own connections, at most `max_connections`.
    """

    def __init__(self, url: str, *, clock: Clock | None = None, timeout: float = 0.1, max_connections: int = 8) -> None:
        self._url = url
        self._clock = clock
        self._timeout = timeout
        self._max_connections = max_connections
        self._lanes: dict[asyncio.AbstractEventLoop, Lane] = {}
        self._client()  # Fails here for a URL that redis-py cannot read.

    def __repr__(self) -> str:
        scheme, _, rest = self._url.partition("://")
        # What stands after the last "@" is no part of a login, even of a password that was not encoded.
        shown = rest.rpartition("@")[2].partition("?")[0].partition("#")[0]
        return f"<RedisStore {scheme}://{shown}>"

    async def submit(self, request: Request) -> Answer:
        """Do what is asked with the charges of one request, in one call together with whatever else waits."""
        return await self._lane().submit(request)

    async def notes(self, book: str, seen: int | None) -> Notes | None:
        """Return what is noted in the hash `book`: one small call where nothing has changed, else page by page."""
        try:
            return await self._notes(book, seen)
        except (TypeError, ValueError, AttributeError):
            raise StoreError(_STRANGE) from None

    async def _notes(self, book: str, seen: int | None) -> Notes | None:
        run = self._lane().run
        told = await run("HGET", book, _VERSION)
        version = int(told) if told is not None and told.isdigit() else 0
        if version == seen:
            return None
        values, cursor = dict[str, bytes](), 0
        while True:
            cursor, page = await run("HSCAN", book, cursor, "COUNT", _PAGE)
            values |= {name.decode("utf-8", "backslashreplace"): value for name, value in page.items()}
            if not cursor:
                break
        values.pop(_VERSION, None)
        return Notes(version, values)

    async def note(self, book: str, name: str, value: bytes | None) -> None:
        """Write or remove one field, and count the change, in one step."""
        await self._lane().run("EVAL", _NOTE, 1, book, name, b"" if value is None else value)

    async def present(self, book: str, worker: str, seconds: float) -> int:
        """Keep the workers in a sorted set, by when they are forgotten."""
        told = await self._lane().run("EVAL", _PRESENT, 1, book, worker, round(seconds * 1000))
        if not isinstance(told, int):
            raise StoreError(_STRANGE)
        return told

    async def settle(self) -> bool:
        """Find out what became of calls that nobody knows of."""
        lane = self._lanes.get(asyncio.get_running_loop())
        return lane is None or await lane.settle()

    async def aclose(self) -> None:
        """Wait for the calls under way in this event loop and close its connections."""
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if lane is not None:
            await lane.aclose()

    def _lane(self) -> Lane:
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            # A loop that has ended took its connections with it; a test client may start one per request.
            self._lanes = {each: lane for each, lane in self._lanes.items() if not each.is_closed()}
            lane = self._lanes[loop] = self._new_lane()
        return lane

    def _new_lane(self) -> Lane:
        client = self._client()
        kind = ClusterLane if isinstance(client, RedisCluster) else ServerLane
        return kind(client, self._clock, self._timeout)  # type: ignore[arg-type]

    def _client(self) -> "redis.asyncio.Redis | RedisCluster":
        return connect(self._url, timeout=self._timeout, max_connections=self._max_connections)


_NOTE: Final = f"""-- KEYS the book; ARGV a name and its value, '' to remove it. A book has no expiry: its entries say theirs.
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], '{_VERSION}', time[1] .. string.format('%06d', time[2]))
if ARGV[2] == '' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""


_PRESENT: Final = """-- KEYS the book; ARGV a worker and the milliseconds for which it is known.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], 60000)
return redis.call('ZCARD', KEYS[1])
"""
