"""The Redis store: counters that all workers share."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ratelimit.clock import Clock, system_clock
from ratelimit.errors import ConfigurationError, StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.base import Answer, Notes, Request, Store
from ratelimit.stores.group_commit import GroupCommit, Told
from ratelimit.stores.line import Line, Refused
from ratelimit.stores.wire import SCRIPT, SCRIPT_SHA, decode, encode, pack

SCHEMES: Final = ("redis", "rediss", "unix")

_HAND_CLOCK_TTL: Final = 86_400_000
"""Milliseconds that keys live at least where the clock was handed in: it does not run with the server's."""


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
        return await self._lane().commit.submit(request)

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


class _Lane:
    """What one event loop holds open: a line for the calls that charge, and redis-py's connections for the rest."""

    def __init__(self, client: "redis.asyncio.Redis", clock: Clock | None, timeout: float) -> None:
        self.client = client
        self.commit = GroupCommit(self._send)
        make: Any = client.connection_pool.make_connection
        self._line = Line(make())
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._timeout = timeout
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self, *command: Any) -> Any:
        """Run one command within the timeout; raises nothing but `StoreError`."""
        execute: Any = self.client.execute_command
        async with _mapped(self._timeout):
            return await execute(*command)

    async def aclose(self) -> None:
        """Wait for the calls under way and close the connections."""
        await self.commit.aclose()
        await self._line.aclose()
        await self.client.aclose()

    def _send(self, requests: Sequence[Request], then: Callable[[Told], None]) -> None:
        deadline = self._loop.time() + self._timeout
        if self._line.open:
            self._write(requests, then, deadline)
            return
        task = self._loop.create_task(self._connect_and_write(requests, then, deadline))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_and_write(
        self, requests: Sequence[Request], then: Callable[[Told], None], deadline: float
    ) -> None:
        try:
            async with _mapped(deadline - self._loop.time()):
                await self._line.connect()
            self._write(requests, then, deadline)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
            then(error)
        except BaseException:
            then(StoreError("the call to the store was cut off"))
            raise

    def _write(self, requests: Sequence[Request], then: Callable[[Told], None], deadline: float) -> None:
        now = None if self._clock is None else self._clock()
        arguments = encode(
            requests,
            now=None if now is None else now // 1000,
            ttl_floor=0 if now is None else _HAND_CLOCK_TTL,
        )

        def told(reply: bytes | StoreError) -> None:
            if isinstance(reply, Refused) and reply.code == "NOSCRIPT":
                # Nothing was charged: the server does not know the script (any more).
                self._line.call(pack(b"EVAL", SCRIPT.encode(), *arguments), told, deadline)
                return
            then(reply if isinstance(reply, StoreError) else _answers(reply, requests, now))

        self._line.call(pack(b"EVALSHA", SCRIPT_SHA.encode(), *arguments), told, deadline)


def _answers(reply: bytes, requests: Sequence[Request], now: int | None) -> Told:
    try:
        return list(decode(reply, requests, system_clock() if now is None else now))
    except Exception as error:  # noqa: BLE001 - told to who waits
        return error


@asynccontextmanager
async def _mapped(timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109 - it is what the block may take
    """Raise our own errors for whatever goes wrong within, and `StoreTimeout` after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except (RedisTimeoutError, TimeoutError):
        raise StoreTimeout("the store did not answer in time") from None
    except (AuthenticationError, AuthorizationError) as error:
        raise StoreError(f"the store refused the login: {error!s:.100}") from None
    except (RedisConnectionError, OSError) as error:
        raise StoreUnavailable(f"the store could not be reached ({type(error).__name__})") from None
    except RedisError as error:
        raise StoreError(f"the store answered {type(error).__name__}: {error!s:.100}") from None
