"""The Redis store: counters that all workers share."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from ratelimit._utils.histogram import Histogram
from ratelimit._utils.per_loop import PerLoop
from ratelimit._utils.sampling import LogOnce
from ratelimit.clock import Clock
from ratelimit.errors import StoreError
from ratelimit.stores.base import BATCH_SIZES, Store, T
from ratelimit.stores.messages import Outcome, SharedMap, StoreReply, StoreRequest
from ratelimit.stores.redis.foreign_value import ForeignValue

if TYPE_CHECKING:
    from ratelimit.stores.redis.client import RedisClient

logger = logging.getLogger("ratelimit")

_VERSION: Final = "#version"
"""The field of a shared map that holds its version; no entry's name begins with `#`."""

_UNEXPECTED: Final = "the store sent a reply of an unexpected type [RL407]"
_READ_AT_ONCE: Final = 100
"""Rankings that one call reads."""
_PAGE: Final = 1000
"""Entries of a shared map that one call reads."""
_MAX_VERSION_DIGITS: Final = 20
_MAX_NUMBER: Final = 2**62
"""Counts and ranks are read up to this one: another program may write any number."""


class RedisStore(Store):
    """Count in a Redis (or Valkey) that all workers share; each batch of requests is one atomic script call.

    `url` is `redis://`, `rediss://` or `unix://`, with user, password and database as redis-py reads them, or several
    servers: `redis+cluster://host,host` or `redis+sentinel://host,host/name-of-the-master`. `clock` returns integer
    microseconds since the epoch; without one, the server's own time counts. A call that takes longer than `timeout`
    seconds raises `StoreTimeout`. Connecting, with reading a Cluster's topology, goes on in the background for
    `connect_timeout` seconds, which also bound the calls for overrides and heartbeats. Nothing is connected before the
    first call. The store may be used from several event loops; each has its own connections, at most `max_connections`. A URL that redis-py cannot read raises `ConfigurationError`.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        timeout: float = 0.1,
        connect_timeout: float = 2.0,
        max_connections: int = 8,
    ) -> None:
        self._url = url
        self._clock = clock
        self.call_timeout, self._connect_timeout = timeout, connect_timeout
        self._max_connections = max_connections
        self._batches = self.batches = Histogram(BATCH_SIZES)
        self._clients: PerLoop[RedisClient] = PerLoop(self._new_client)
        self._foreign = LogOnce(logger)
        self._connect()  # A URL that redis-py cannot read fails here.

    def __repr__(self) -> str:
        scheme, _, rest = self._url.partition("://")
        # The part after the last "@" holds no credentials, even where a password was not percent-encoded.
        shown = rest.rpartition("@")[2].partition("?")[0].partition("#")[0]
        return f"<RedisStore {scheme}://{shown}>"

    @property
    def client(self) -> "RedisClient":
        """The client of the running event loop, made where there is none."""
        return self._clients.get()

    @property
    def client_count(self) -> int:
        """The number of event loops that have a client."""
        return len(self._clients)

    def forget_clients(self) -> None:
        """Forget the clients of all event loops without closing them, as a test does that cuts off their servers."""
        self._clients.clear()

    async def submit(self, request: StoreRequest) -> StoreReply:
        """Do what is asked with the charges of one request, in one call with the other requests that wait."""
        return await self._clients.get().submit(request)

    def submit_soon(
        self, request: StoreRequest, then: Callable[[StoreRequest, Outcome], T]
    ) -> asyncio.Future[T] | None:
        """Do as `submit`, by a future of what `then` makes of the outcome; `None` for a Cluster."""
        return self._clients.get().submit_soon(request, then)

    async def rehearse(self, request: StoreRequest) -> StoreReply:
        """Return what `submit` would reply to charges, by calls that write nothing."""
        from ratelimit.stores.redis.rehearsal import rehearse  # noqa: PLC0415 - it brings msgpack

        client, now = self.client, None if self._clock is None else self._clock()
        return await rehearse(client.run, request, now=now, server_of=client.slot_of)

    async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
        """Return the shared map `name`, a hash: one small call where nothing has changed, else page by page.

        Where another program has put a value of another type, what was read before goes on.
        """
        try:
            return await self._read_map(name, seen)
        except ForeignValue:
            self._say_foreign(name)
            return SharedMap(0, {}) if seen is None else None
        except (TypeError, ValueError, AttributeError):
            raise StoreError(_UNEXPECTED) from None

    async def _read_map(self, name: str, seen: int | None) -> SharedMap | None:
        run = self.client.run
        version = _version(await run("HGET", name, _VERSION))
        if version == seen:
            return None
        values, cursor = dict[str, bytes](), 0
        while True:
            cursor, page = await run("HSCAN", name, cursor, "COUNT", _PAGE)
            values |= {entry.decode("utf-8", "backslashreplace"): value for entry, value in page.items()}
            if not cursor:
                break
        values.pop(_VERSION, None)
        return SharedMap(version, values)

    async def put_entry(self, name: str, entry: str, value: bytes | None) -> None:
        """Write or remove one field, and change the version, in one step."""
        await self._run_script("put_entry", name, entry, b"" if value is None else value, _VERSION)

    async def delete(self, keys: Iterable[str]) -> int:
        """Remove these keys, in as many calls, since each may live on another server; return how many there were."""
        try:
            return sum([int(await self.client.run("UNLINK", key)) for key in keys])
        except (TypeError, ValueError):
            raise StoreError(_UNEXPECTED) from None

    async def add_counts(self, spans: Sequence[tuple[str, int]], counts: Mapping[str, int]) -> None:
        """Add these numbers to a hash for each span of time, in one script call; the spans share a hash slot."""
        from ratelimit.stores.redis.codec import read_script  # noqa: PLC0415 - it brings msgpack

        lives = [seconds * 1000 for _, seconds in spans]
        fields = [each for pair in counts.items() for each in pair]
        keys = [span for span, _ in spans]
        await self.client.run("EVAL", read_script("add_counts"), len(keys), *keys, len(keys), *lives, *fields)

    async def read_counts(self, spans: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the hashes of these spans of time, a hundred in a call; they share a hash slot."""
        return await self._read_many("read_counts", spans)

    async def append_log(self, name: str, values: Sequence[bytes], *, keep: int, seconds: int) -> None:
        """Append to a stream, in one script call."""
        await self._run_script("append_log", name, keep, seconds * 1000, *values)

    async def read_log(self, name: str, *, last: int = 100, after: str | None = None) -> Sequence[tuple[str, bytes]]:
        """Return the last values of a stream, or the first after an id."""
        try:
            if after is None:
                found = list(reversed(await self.client.run("XREVRANGE", name, "+", "-", "COUNT", last)))
            else:
                found = await self.client.run("XRANGE", name, _next_id(after), "+", "COUNT", last)
            return [(entry.decode(), fields.get(b"v", b"")) for entry, fields in found]
        except ForeignValue:
            self._say_foreign(name)
            return ()
        except (TypeError, ValueError, AttributeError, KeyError):
            raise StoreError(_UNEXPECTED) from None

    async def add_ranks(
        self, ranks: Mapping[str, Mapping[str, int]], *, keep: int, seconds: int, replace: bool = False
    ) -> None:
        """Add these numbers to sorted sets (or set them), in one script call; they share a hash slot."""
        from ratelimit.stores.redis.codec import read_script  # noqa: PLC0415 - it brings msgpack

        numbers: list[Any] = []
        for changes in ranks.values():
            numbers += [len(changes), *(each for pair in changes.items() for each in pair)]
        options = keep, seconds * 1000, "ZADD" if replace else "ZINCRBY"
        await self.client.run("EVAL", read_script("add_ranks"), len(ranks), *ranks, *options, *numbers)

    async def read_ranks(self, names: Sequence[str], *, member: str | None = None) -> Sequence[Mapping[str, int]]:
        """Return these sorted sets or one member of each, a hundred in a call; they share a hash slot."""
        return await self._read_many("read_ranks", names, *(() if member is None else (member,)))

    async def _read_many(self, script: str, names: Sequence[str], *arguments: str) -> Sequence[Mapping[str, int]]:
        from ratelimit.stores.redis.codec import read_script  # noqa: PLC0415 - it brings msgpack

        found: list[Any] = []
        for first in range(0, len(names), _READ_AT_ONCE):
            some = names[first : first + _READ_AT_ONCE]
            found += await self.client.run("EVAL", read_script(script), len(some), *some, *arguments)
        for name, each in zip(names, found, strict=True):
            if each is None:
                self._say_foreign(name)
        try:
            return [_numbers(each or ()) for each in found]
        except (TypeError, ValueError, AttributeError):
            raise StoreError(_UNEXPECTED) from None

    async def heartbeat(self, registry: str, worker: str, seconds: float) -> int:
        """Register the worker in a sorted set, by when it expires; return the number registered now."""
        count = await self._run_script("heartbeat", registry, worker, round(seconds * 1000))
        if not isinstance(count, int):
            raise StoreError(_UNEXPECTED)
        return count

    async def info(self, section: str) -> dict[str, Any]:
        """Return a section of what the server says of itself; empty where the login may not ask for it."""
        try:
            found = await self.client.run("INFO", section)
        except StoreError as error:
            if "NOPERM" not in str(error):
                raise
            return {}
        return dict(found) if isinstance(found, dict) else {}

    async def evicts_by(self) -> str | None:
        """Return the server's `maxmemory-policy` where it evicts: all counters have an expiry, so each policy but one may."""
        memory = await self.info("memory")
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        return policy if policy != "noeviction" and int(memory.get("maxmemory", 0)) else None

    async def drain(self) -> None:
        """Wait for the calls in flight in this event loop."""
        client = self._clients.peek()
        if client is not None:
            await client.drain()

    async def resolve_in_doubt(self) -> bool:
        """Look up the calls without a reply, and return whether none remains in doubt."""
        client = self._clients.peek()
        return client is None or await client.resolve_in_doubt()

    async def aclose(self) -> None:
        """Wait for the calls in flight in this event loop and close its connections."""
        client = self._clients.pop()
        if client is not None:
            await client.aclose()

    def _say_foreign(self, name: str) -> None:
        self._foreign.error("%r holds a value of another type, which counts as empty [RL508]", name)

    async def _run_script(self, script: str, key: str, *arguments: Any) -> Any:
        from ratelimit.stores.redis.codec import read_script  # noqa: PLC0415 - it brings msgpack

        return await self.client.run("EVAL", read_script(script), 1, key, *arguments)

    def _new_client(self) -> "RedisClient":
        from redis.asyncio.cluster import RedisCluster  # noqa: PLC0415

        from ratelimit.stores.redis.client import StandaloneClient  # noqa: PLC0415
        from ratelimit.stores.redis.cluster import ClusterClient  # noqa: PLC0415

        client = self._connect()
        kind = ClusterClient if isinstance(client, RedisCluster) else StandaloneClient
        return kind(client, self._clock, self.call_timeout, self._connect_timeout, self._batches.observe)

    def _connect(self) -> Any:
        # redis takes 91 ms to import, more than this whole package: an app that counts in memory does without it.
        from ratelimit.stores.redis.connect import connect  # noqa: PLC0415

        return connect(
            self._url,
            connect_timeout=self._connect_timeout,
            max_connections=self._max_connections,
        )


def _next_id(entry: str) -> str:
    """Return the id after that of a stream's entry: an open interval needs Redis 6.2."""
    instant, _, number = entry.partition("-")
    return f"{instant}-{int(number or 0) + 1}"


def _version(value: Any) -> int:
    """Return the version of a shared map; of one that another program has written, a number that tells it from others."""
    if value is None:
        return 0
    return int(value) if value.isdigit() and len(value) <= _MAX_VERSION_DIGITS else -1 - crc32(value)


def _numbers(flat: Sequence[bytes]) -> dict[str, int]:
    """Return the numbers by their names, of a list in which they alternate; what is no number is left out."""
    found: dict[str, int] = {}
    for name, text in zip(flat[::2], flat[1::2], strict=True):
        with suppress(ValueError):
            number = min(max(float(text), -_MAX_NUMBER), _MAX_NUMBER)
            found[name.decode("utf-8", "backslashreplace")] = int(number)
    return found
