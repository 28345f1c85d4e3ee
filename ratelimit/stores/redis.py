"""The Redis store: counters that all workers share."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoScriptError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ratelimit.clock import Clock, system_clock
from ratelimit.decision import Charge, ServiceLimit
from ratelimit.errors import ConfigurationError, StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.group_commit import GroupCommit
from ratelimit.stores.wire import SCRIPT, SCRIPT_SHA, Request, decode, encode

SCHEMES: Final = ("redis", "rediss", "unix")

_HAND_CLOCK_TTL: Final = 86_400_000
"""Milliseconds that keys live at least where the clock was handed in: it does not run with the server's."""


class RedisStore:
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

    async def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> Sequence[ServiceLimit]:
        """Decide the charges of one request, in one call together with whatever else waits."""
        return await self._lane().commit.submit(Request(charges, peek))

    async def aclose(self) -> None:
        """Wait for the calls under way in this event loop and close its connections."""
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if lane is not None:
            await lane.commit.aclose()
            await lane.client.aclose()

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


class _Lane:
    """What one event loop holds open."""

    def __init__(self, client: "redis.asyncio.Redis", clock: Clock | None, timeout: float) -> None:
        self.client = client
        self.commit = GroupCommit(self._send)
        self._clock = clock
        self._timeout = timeout

    async def _send(self, requests: Sequence[Request]) -> Sequence[Sequence[ServiceLimit]]:
        now = None if self._clock is None else self._clock()
        keys, packed = encode(
            requests,
            now=None if now is None else now // 1000,
            ttl_floor=0 if now is None else _HAND_CLOCK_TTL,
        )
        reply = await self._call(keys, packed)
        return list(decode(reply, requests, system_clock() if now is None else now))

    async def _call(self, keys: list[str], packed: bytes) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._execute("EVALSHA", SCRIPT_SHA, keys, packed)
                except NoScriptError:  # Nothing was charged: the server does not know the script (any more).
                    return await self._execute("EVAL", SCRIPT, keys, packed)
        except (RedisTimeoutError, TimeoutError):
            raise StoreTimeout("the store did not answer in time") from None
        except (AuthenticationError, AuthorizationError) as error:
            raise StoreError(f"the store refused the login: {error!s:.100}") from None
        except (RedisConnectionError, OSError) as error:
            raise StoreUnavailable(f"the store could not be reached ({type(error).__name__})") from None
        except RedisError as error:
            raise StoreError(f"the store answered {type(error).__name__}: {error!s:.100}") from None

    async def _execute(self, command: str, script: str, keys: list[str], packed: bytes) -> Any:
        run: Any = self.client.execute_command
        return await run(command, script, len(keys), *keys, packed)
