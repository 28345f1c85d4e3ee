"""Checks of a server: what a Redis (or Valkey) needs to count limits, and whether the workers agree."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Final, Literal

from ratelimit.clock import monotonic, system_clock
from ratelimit.config.settings_hash import settings_hash
from ratelimit.enforcement.workers import CONFIG_SUFFIX
from ratelimit.errors import StoreError
from ratelimit.inspection.server_rights import DENIED, refused_commands
from ratelimit.limiter import Limiter
from ratelimit.resolver.keys import escape
from ratelimit.stores.base import Store
from ratelimit.stores.redis.store import RedisStore

MIN_VERSION: Final = (5, 0)
"""The oldest server whose scripts may read the time and write."""

_ROUND_TRIPS: Final = 100
_MAX_CLOCK_S: Final = 0.5
_FULL, _NEARLY_FULL = 1.0, 0.9
_DATABASES: Final = 16

Severity = Literal["ok", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCheck:
    """One check: what it found, and the code of the message where that is not fine."""

    name: str
    severity: Severity
    message: str
    code: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON takes it."""
        return {"check": self.name, "severity": self.severity, "code": self.code, "message": self.message}


async def check_server(
    limiter: Limiter, *, minimum: tuple[int, int] = MIN_VERSION, store_timeout: float | None = None
) -> list[ServerCheck]:
    """Check the server of a limiter; `minimum` is the oldest version that is fine.

    Round trips are compared with `store_timeout` seconds, by default that of the limiter's settings.

    Writes one key that is deleted at once. Raises `StoreError` where the server does not answer at all.
    """
    if not isinstance(limiter.store, RedisStore):
        return [ServerCheck(name="store", severity="info", message=f"{limiter.store!r} is no server: nothing to check")]
    server = _Server(limiter, limiter.store, store_timeout or limiter.settings.store_timeout)
    await server.read()
    checks: Sequence[Callable[[], Awaitable[Iterable[ServerCheck]]]] = (
        lambda: server.version(minimum),
        server.role,
        server.rights,
        server.memory,
        server.eviction,
        server.round_trip,
        server.clock,
        server.script,
        server.workers,
        server.cluster,
    )
    return [found for check in checks for found in await _allowed(check)]


async def _allowed(check: Callable[[], Awaitable[Iterable[ServerCheck]]]) -> Iterable[ServerCheck]:
    """Return what a check finds; where the login may not ask, that: which right is missing is a finding of its own."""
    try:
        return await check()
    except StoreError as error:
        if not DENIED.search(str(error)):
            raise
        return [_check("rights", "info", f"a check is left out: {error}")]


async def eviction_policy(store: Store) -> str:
    """Return the eviction policy of a store's server; `noeviction` for what is no server."""
    if not isinstance(store, RedisStore):
        return "noeviction"
    return str((await store.info("memory")).get("maxmemory_policy", "noeviction"))


class _Server:
    """One server, with what it says of itself."""

    def __init__(self, limiter: Limiter, store: RedisStore, store_timeout: float) -> None:
        self._limiter, self._store, self._timeout = limiter, store, store_timeout
        self._prefix = escape(limiter.settings.key_prefix)
        self._info: dict[str, Any] = {}

    async def read(self) -> None:
        """Read what the server says of itself; raises `StoreError` where it does not answer."""
        for section in ("server", "replication", "memory", "keyspace"):
            self._info |= await self._store.info(section)

    async def version(self, minimum: tuple[int, int]) -> list[ServerCheck]:
        """Check that the server is new enough."""
        name = "valkey" if "valkey_version" in self._info else "redis"
        text = str(self._info.get(f"{name}_version", ""))
        if not text:
            return [_check("version", "info", "the login may not ask for it (INFO)")]
        if tuple(int(part) for part in text.split(".")[:2]) < minimum:
            wanted = ".".join(map(str, minimum))
            return [_check("version", "error", f"{name} {text} is too old: {wanted} or newer is needed", "RL901")]
        return [_check("version", "ok", f"{name} {text}")]

    async def role(self) -> list[ServerCheck]:
        """Check that the server takes writes."""
        role = str(self._info.get("role", "master"))
        if role == "master":
            return [_check("role", "ok", "master")]
        text = f"it is a {role} and takes no writes: name the master, or use redis+sentinel://"
        return [_check("role", "error", text, "RL902")]

    async def rights(self) -> list[ServerCheck]:
        """Check that the login may use all commands."""
        missing = await refused_commands(self._store.client.run, f"{self._prefix}:{{doctor}}")
        denied = sorted({each.partition(":")[0] for each in missing if DENIED.search(each)})
        others = [each for each in missing if each.partition(":")[0] not in denied]
        checks = []
        if denied:
            text = f"the login may not use {', '.join(denied)} (ACL SETUSER … +{' +'.join(each.lower() for each in denied)})"
            checks.append(_check("rights", "error", text, "RL903"))
        if others and not self._is_replica():
            checks.append(_check("writes", "error", f"the server refuses writes: {others[0]:.120}", "RL904"))
        return checks or [_check("rights", "ok", "all commands are allowed")]

    def _is_replica(self) -> bool:
        return str(self._info.get("role", "master")) != "master"

    async def memory(self) -> list[ServerCheck]:
        """Check that there is memory left."""
        used, most = int(self._info.get("used_memory", 0)), int(self._info.get("maxmemory", 0))
        if not most:
            return [_check("memory", "ok", f"{used / 2**20:.0f} MiB used, without a bound")]
        text = f"{used / 2**20:.1f} of {most / 2**20:.1f} MiB used"
        if used >= _NEARLY_FULL * most:
            return [_check("memory", "error" if used >= _FULL * most else "warning", f"{text}: nearly full", "RL905")]
        return [_check("memory", "ok", text)]

    async def eviction(self) -> list[ServerCheck]:
        """Check that the server does not drop counters."""
        policy, most = str(self._info.get("maxmemory_policy", "noeviction")), int(self._info.get("maxmemory", 0))
        if policy == "noeviction" or not most:
            return [_check("eviction", "ok", f"maxmemory-policy {policy}")]
        text = f"maxmemory-policy {policy}: when memory is full, counters are dropped and begin at zero; set noeviction"
        return [_check("eviction", "warning", text, "RL906")]

    async def round_trip(self) -> list[ServerCheck]:
        """Measure round trips against the time that a decision may take."""
        times = []
        for _ in range(_ROUND_TRIPS):
            began = monotonic()
            await self._store.client.run("HGET", f"{self._prefix}:{{doctor}}", "f")
            times.append(monotonic() - began)
        cuts = quantiles(times, n=100)
        p50, p99, bound = cuts[49], cuts[98], self._timeout
        text = f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms; store_timeout {bound * 1000:g} ms"
        if p99 >= bound:
            return [_check("round trip", "error", f"{text}: decisions time out", "RL907")]
        return [
            _check("round trip", "warning" if p99 >= bound / 2 else "ok", text, "RL907" if p99 >= bound / 2 else None)
        ]

    async def clock(self) -> list[ServerCheck]:
        """Check that the server's clock and this machine's agree."""
        before = system_clock()
        found = await self._time()
        ahead = (found - (before + system_clock()) / 2) / 1e6
        text = f"the server's clock is {abs(ahead):.2f} s {'ahead' if ahead > 0 else 'behind'}"
        if abs(ahead) > _MAX_CLOCK_S:
            return [_check("clock", "warning", f"{text}: X-RateLimit-Reset is off by as much", "RL908")]
        return [_check("clock", "ok", text)]

    async def script(self) -> list[ServerCheck]:
        """Check whether the server knows the script."""
        from ratelimit.stores.redis.codec import SCRIPT_SHA  # noqa: PLC0415 - it brings msgpack

        try:
            (known,) = await self._store.client.run("SCRIPT EXISTS", SCRIPT_SHA)
        except (StoreError, TypeError, ValueError):
            return [_check("script", "info", "the login may not ask for it (SCRIPT EXISTS)")]
        if known:
            return [_check("script", "ok", "in the server's cache")]
        text = "not in the server's cache (it was flushed, the server is new, or nothing was charged yet): the next call sends it again"
        return [_check("script", "info", text, "RL909")]

    async def workers(self) -> list[ServerCheck]:
        """Check that workers are registered here, and that all have the same settings."""
        registry = f"{self._prefix}:{{workers}}"
        now_ms = await self._time() // 1000
        (names,) = await self._store.read_ranks([f"{registry}{CONFIG_SUFFIX}"])
        alive = [name for name, until in names.items() if until > now_ms - 1000]
        hashes = sorted({name.partition("@")[2] for name in alive})
        if not alive:
            elsewhere = await self._elsewhere(registry)
            if elsewhere is not None:
                text = (
                    f"no worker is registered in this database, but some are in database {elsewhere}: is the URL right?"
                )
                return [_check("workers", "error", text, "RL910")]
            return [_check("workers", "info", "no worker is registered: the app does not run, or counts elsewhere")]
        if len(hashes) > 1:
            text = f"{len(alive)} workers have {len(hashes)} different settings ({', '.join(hashes)}): a deployment is half done"
            return [_check("workers", "warning", text, "RL911")]
        if hashes[0] != settings_hash(self._limiter.settings):
            text = f"{len(alive)} workers have the settings {hashes[0]}, which are not those that doctor was given"
            return [_check("workers", "warning", f"{text}: a reload was rejected, or a deployment is due", "RL913")]
        return [_check("workers", "ok", f"{len(alive)}, all with the settings {hashes[0]}")]

    async def _time(self) -> int:
        """Return the time of the server that has the worker registry, in epoch µs."""
        script = "local t = redis.call('TIME') return {t[1], t[2]}"
        seconds, micros = await self._store.client.run("EVAL", script, 1, f"{self._prefix}:{{workers}}")
        return int(seconds) * 1_000_000 + int(micros)

    async def _elsewhere(self, registry: str) -> int | None:
        """Return another database in which workers are registered."""
        pool = getattr(self._store.client.redis, "connection_pool", None)
        own = getattr(pool, "connection_kwargs", {}).get("db", 0)
        used = [int(name[2:]) for name in self._info if name.startswith("db") and name[2:].isdigit()]
        for database in used[:_DATABASES]:
            if database != own and await self._count_in(database, registry):
                return database
        return None

    async def _count_in(self, database: int, registry: str) -> int:
        count = "redis.call('SELECT', ARGV[1]) return redis.call('ZCARD', KEYS[1])"
        try:
            return int(await self._store.client.run("EVAL", count, 1, registry, database))
        except (StoreError, TypeError, ValueError):
            return 0

    async def cluster(self) -> list[ServerCheck]:
        """Check that all slots of a Cluster are served."""
        if not self._limiter.settings.store.startswith("redis+cluster"):
            return []
        found = await self._store.client.run("CLUSTER INFO")
        state = found if isinstance(found, dict) else {}
        served = int(state.get("cluster_slots_ok", 0))
        if state.get("cluster_state") == "ok" and served == 2**14:
            return [_check("cluster", "ok", f"{served} slots are served by {state.get('cluster_size', '?')} nodes")]
        return [
            _check("cluster", "error", f"{served} of {2**14} slots are served ({state.get('cluster_state')})", "RL912")
        ]


def _check(name: str, severity: Severity, message: str, code: str | None = None) -> ServerCheck:
    return ServerCheck(name=name, severity=severity, message=message, code=code)


def severity_of_checks(checks: Iterable[ServerCheck]) -> Severity:
    """Return the worst severity among checks."""
    order: Sequence[Severity] = ("ok", "info", "warning", "error")
    return max((check.severity for check in checks), key=order.index, default="ok")
