"""The Redis store: counters that all workers share."""

import asyncio
from typing import Any, Final
from urllib.parse import urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ratelimit.clock import Clock
from ratelimit.errors import ConfigurationError
from ratelimit.stores.base import Answer, Notes, Request, Store
from ratelimit.stores.node import Node, mapped

SCHEMES: Final = ("redis", "rediss", "unix")

_VERSION: Final = "#version"
"""The field of a book of notes that tells when it was changed; no name begins with `#`."""

_PAGE: Final = 1000
"""Notes that are read in one call."""


class RedisStore(Store):
    """Count in a Redis (or Valkey) that all workers share; each batch of requests is one atomic script call.

    `url` is `redis://`, `rediss://` or `unix://`, with user, password and database as redis-py reads them. `clock`
    returns integer microseconds; with none, the server's own time counts. A call that takes longer than `timeout`
    seconds raises `StoreTimeout`. Nothing is connected before the first call, and the store may be used from several
    event loops: each has its own connections, at most `max_connections`.
    """

    def __init__(self, url: str, *, clock: Clock | None = None, timeout: float = 0.1, max_connections: int = 8) -> None:
        self._url = url
        self._clock = clock
        self._timeout = timeout
        self._max_connections = max_connections
        self._lanes: dict[asyncio.AbstractEventLoop, _Lane] = {}
        self._client()  # Fails here for a URL that redis-py cannot read.

    def __repr__(self) -> str:
        parts = urlsplit(self._url)
        host = parts.netloc.rpartition("@")[2]
        return f"<RedisStore {parts.scheme}://{host}{parts.path}>"

    async def submit(self, request: Request) -> Answer:
        """Do what is asked with the charges of one request, in one call together with whatever else waits."""
        return await self._lane().submit(request)

    async def notes(self, book: str, seen: int | None) -> Notes | None:
        """Return what is noted in the hash `book`: one small call where nothing has changed, else page by page."""
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
        return int(await self._lane().run("EVAL", _PRESENT, 1, book, worker, round(seconds * 1000)))

    async def aclose(self) -> None:
        """Wait for the calls under way in this event loop and close its connections."""
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if lane is not None:
            await lane.aclose()

    def _lane(self) -> "_Lane":
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            # A loop that has ended took its connections with it; a test client may start one per request.
            self._lanes = {each: lane for each, lane in self._lanes.items() if not each.is_closed()}
            lane = self._lanes[loop] = _Lane(self._client(), self._clock, self._timeout)
        return lane

    def _client(self) -> "redis.asyncio.Redis":
        try:
            client = redis.asyncio.Redis.from_url(
                self._url,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                max_connections=self._max_connections,
            )
            # The URL may not change these. A script that charges is not idempotent: a retry after a lost reply would
            # charge twice.
            client.connection_pool.connection_kwargs.update(
                retry=Retry(NoBackoff(), 0), retry_on_timeout=False, retry_on_error=[], decode_responses=False
            )
            make: Any = client.connection_pool.make_connection
            make()
        except (ValueError, TypeError, AttributeError, RedisError) as error:
            # redis-py's own message may repeat the URL, and with it the password.
            raise ConfigurationError(f"store: redis-py cannot use this URL ({type(error).__name__})") from None
        return client


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


class _Lane:
    """What one event loop holds open: a node for the calls that charge, and redis-py's connections for the rest."""

    def __init__(self, client: "redis.asyncio.Redis", clock: Clock | None, timeout: float) -> None:
        self.client = client
        self.node = Node(client.connection_pool.make_connection, clock, timeout)
        self._timeout = timeout

    async def submit(self, request: Request) -> Answer:
        """Do what is asked, together with whatever else waits."""
        return await self.node.commit.submit(request)

    async def run(self, *command: Any) -> Any:
        """Run one command within the timeout; raises nothing but `StoreError`."""
        execute: Any = self.client.execute_command
        async with mapped(self._timeout):
            return await execute(*command)

    async def aclose(self) -> None:
        """Wait for the calls under way and close the connections."""
        await self.node.aclose()
        await self.client.aclose()
