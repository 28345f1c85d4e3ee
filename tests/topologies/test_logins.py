"""ACL users with the least rights, and a Unix socket, on a real Redis."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from ratelimit import Concurrency, Identity, Limit, Limiter, Quota, RateLimitSettings, RedisStore, StoreError
from ratelimit.charge import Charge
from ratelimit.stores import Op, Request
from tests.support.engines import fresh_key, quota, slots, terms
from tests.support.load import until
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.topologies

PASSWORD = "p@ss:w/ö rd%#?&é+{}"

COUNTING = (
    "+evalsha",
    "+eval",
    "+time",
    "+mget",
    "+set",
    "+setrange",
    "+del",
    "+zadd",
    "+zcount",
    "+zscore",
    "+zrem",
    "+zrangebyscore",
    "+zremrangebyscore",
    "+pexpire",
)
"""What charges take: of limits the first six, of quotas `del` too, of `Concurrency` all."""

SHARING = ("+hget", "+hscan", "+hset", "+hdel", "+zcard")
"""What overrides (`+hset` and `+hdel` only where they are set) and the count of the workers take beside it."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path, "--unixsocket", str(tmp_path / "s"))
    made.start()
    yield made
    made.stop()


def allow(server: RedisServer, *rights: str) -> str:
    """Make a user with these rights alone, and return the address to log in with."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limiter", "reset", "on", f">{PASSWORD}", "~rl:*", *rights)
    return server.url.replace("redis://", f"redis://limiter:{quote(PASSWORD, safe='')}@")


ALL = [
    Charge(terms(900, 86_400), "rl:{acl}:limit"),  # So long that all happens in one slot, which takes SETRANGE.
    Charge(quota(9, "month"), "rl:{acl}:quota"),
    Charge(quota(9, None), "rl:{acl}:level"),
    Charge(slots(9), "rl:{acl}:slots"),
]


async def everything(store: RedisStore) -> None:
    """Do all that a store can do with charges, by which each command is used."""
    for _ in range(6):  # The second in a slot of the window takes SETRANGE.
        answer = await store.submit(Request(ALL, Op.HOLD, 7))
    await store.submit(Request(ALL[3:], Op.RENEW, 7))
    await store.submit(Request(ALL, Op.USAGE))
    full = [charge._replace(terms=slots(1)) if charge.terms.kind == "concurrency" else charge for charge in ALL]
    await store.submit(Request(full, Op.HOLD, 8))
    back = [charge._replace(cost=-6) for charge in ALL[:3]]
    await store.submit(Request(back, Op.RELEASE))
    await store.submit(Request([charge._replace(cost=-1) for charge in ALL], Op.ADJUST, 7, answer.at))


async def test_the_least_rights_that_count(server: RedisServer) -> None:
    """`~rl:*` and six commands for limits, `+del` beside them for quotas, seven more for `Concurrency`.

    +evalsha +eval +time +mget +set +setrange; +del; +zadd +zcount +zscore +zrem +zrangebyscore +zremrangebyscore +pexpire.
    Without one of them it fails (of `+zcount` see below). Logging in needs no right, in database 0.
    """
    store = RedisStore(allow(server, *COUNTING), timeout=5)
    await everything(store)
    await store.aclose()
    needless = []
    for without in (right for right in COUNTING if right != "+zcount"):
        with server.client() as client:
            client.flushall()
            client.script_flush()
        store = RedisStore(allow(server, *(right for right in COUNTING if right != without)), timeout=5)
        try:
            await everything(store)
        except StoreError:
            pass
        else:
            needless.append(without)
        finally:
            await store.aclose()
    assert needless == []


async def test_a_right_that_is_missing_frees_no_slots(server: RedisServer) -> None:
    """Without `+zcount` a call fails, and what others hold is still there."""
    runs = [Charge(slots(1), "rl:{acl}:slots")]
    store = RedisStore(allow(server, *COUNTING), timeout=5)
    await store.submit(Request(runs, Op.HOLD, 7))
    await store.aclose()
    poor = RedisStore(allow(server, *(right for right in COUNTING if right != "+zcount")), timeout=5)
    with suppress(StoreError):
        await poor.submit(Request(runs, Op.HOLD, 8))
    await poor.aclose()
    with server.client() as client:
        assert client.zrange("rl:{acl}:slots", 0, -1) == [b"7"]


async def test_limits_alone_take_six_commands(server: RedisServer) -> None:
    """`~rl:* +evalsha +eval +time +mget +set +setrange`."""
    store = RedisStore(allow(server, *COUNTING[:6]), timeout=5)
    for left in (899, 898, 897):  # In slots of 22 minutes.
        assert (await store.charge(ALL[:1]))[0].remaining == left
    await store.submit(Request([ALL[0]._replace(cost=-1)], Op.ADJUST))
    assert (await store.charge(ALL[:1], peek=True))[0].remaining == 898
    await store.aclose()


async def test_the_least_rights_of_a_limiter(server: RedisServer) -> None:
    """Those that count, `+hget +hscan` for overrides, `+hset +hdel` to set them, and `+zcard` for the workers."""
    url, who = allow(server, *COUNTING, *SHARING), Identity(token="t", org="o")
    settings = RateLimitSettings(
        store=url,
        store_timeout=5,
        limits=[Limit(name="token", rate="9/hour", per="token")],
        quotas=[Quota(name="quota", limit=9, period="month", per="org")],
        concurrency=[Concurrency(name="slots", limit=9, per="org")],
    )
    async with Limiter(settings) as limiter:
        decision = await limiter.check(who)
        assert decision.allowed and not decision.degraded
        await limiter.finish(decision)
        await limiter.overrides.set(policy="token", key={"token": "t"}, rate="20/hour")
        assert {limit.policy: limit.remaining for limit in (await limiter.peek(who)).limits}["token"] == 19
        await limiter._greet()
        await limiter.overrides.delete(policy="token", key={"token": "t"})


@pytest.mark.parametrize("wrong", ["password", "rights", "keys"])
async def test_a_login_that_is_refused_repeats_no_password(server: RedisServer, wrong: str) -> None:
    """A wrong password and missing rights are a `StoreError`, of which neither text nor cause has the password in it."""
    url = allow(server, *(COUNTING if wrong != "rights" else ()))
    if wrong == "password":
        url = url.replace("limiter:", "limiter:hunter2-")
    store = RedisStore(url, timeout=5)
    with pytest.raises(StoreError, match="refused the login") as error:
        await store.charge([Charge(terms(9), "rl:{a}" if wrong != "keys" else "other:{a}")])
    told = f"{error.value!r} {error.value} {error.value.__cause__!r} {store!r}"
    assert "hunter2" not in told
    assert "p@ss" not in told and quote("p@ss") not in told
    await store.aclose()


async def test_a_limiter_with_the_least_rights_finds_the_server_again(server: RedisServer) -> None:
    """As every other."""
    url, who = allow(server, *COUNTING, *SHARING), Identity(token="t", org="o")
    limits = [Limit(name="token", rate="900/hour", per="token")]
    async with Limiter(RateLimitSettings(store=url, store_timeout=0.5, limits=limits)) as limiter:
        assert not (await limiter.check(who)).degraded
        server.stop()
        for _ in range(6):
            assert (await limiter.check(who)).degraded
        assert limiter._guard.absence.away
        server.start()
        allow(server, *COUNTING, *SHARING)
        await until(lambda: not limiter._guard.absence.away, 5)


async def test_a_unix_socket(server: RedisServer, tmp_path: Path) -> None:
    """Counts, and is found again when its server is."""
    store, one = RedisStore(f"unix://{tmp_path / 's'}?db=0", timeout=1), Charge(terms(9), fresh_key())
    assert [(await store.charge([one]))[0].remaining for _ in range(3)] == [8, 7, 6]
    server.stop()
    with pytest.raises(StoreError) as error:
        await store.charge([one])
    assert str(tmp_path) not in str(error.value)
    server.start()
    assert (await store.charge([one]))[0].remaining == 8
    await store.aclose()
