"""ACL users with the fewest rights, and a Unix socket, on a real Redis."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from ratelimit import Concurrency, Identity, Limit, Limiter, Quota, RateLimitSettings, RedisStore, StoreError
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.load import until
from tests.support.redis_server import RedisServer
from tests.support.stores import concurrency_limit, fresh_key, quota_limit, window_limit

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
"""What charges need: limits the first six commands, quotas also `del`, `Concurrency` all of them."""

SHARING = ("+hget", "+hscan", "+hset", "+hdel", "+zcard")
"""What overrides (`+hset` and `+hdel` only where they are set) and the worker registry need in addition."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path, "--unixsocket", str(tmp_path / "s"))
    made.start()
    yield made
    made.stop()


def allow(server: RedisServer, *rights: str) -> str:
    """Create a user with these rights alone, and return the URL that logs it in."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limiter", "reset", "on", f">{PASSWORD}", "~rl:*", *rights)
    return server.url.replace("redis://", f"redis://limiter:{quote(PASSWORD, safe='')}@")


ALL = [
    Charge(
        window_limit(900, 86_400), "rl:{acl}:limit"
    ),  # So long that all charges fall into one bucket, which needs SETRANGE.
    Charge(quota_limit(9, "month"), "rl:{acl}:quota"),
    Charge(quota_limit(9, None), "rl:{acl}:level"),
    Charge(concurrency_limit(9), "rl:{acl}:permits"),
]


async def everything(store: RedisStore) -> None:
    """Use every operation on every kind of limit, so that each command is used."""
    for _ in range(6):  # From the second charge in a bucket on, SETRANGE is used.
        reply = await store.submit(StoreRequest(ALL, Operation.ACQUIRE, 7))
    await store.submit(StoreRequest(ALL[3:], Operation.RENEW, 7))
    await store.submit(StoreRequest(ALL, Operation.USAGE))
    full = [
        charge._replace(limit=concurrency_limit(1)) if charge.limit.kind == "concurrency" else charge for charge in ALL
    ]
    await store.submit(StoreRequest(full, Operation.ACQUIRE, 8))
    back = [charge._replace(cost=-6) for charge in ALL[:3]]
    await store.submit(StoreRequest(back, Operation.RELEASE))
    await store.submit(StoreRequest([charge._replace(cost=-1) for charge in ALL], Operation.ADJUST, 7, reply.store_ms))


async def test_the_fewest_rights_for_charges(server: RedisServer) -> None:
    """Charges need `~rl:*`, six commands for limits, `+del` for quotas as well, and seven more for `Concurrency`.

    +evalsha +eval +time +mget +set +setrange; +del; +zadd +zcount +zscore +zrem +zrangebyscore +zremrangebyscore +pexpire.
    Without any one of them charges fail (for `+zcount` see below). A login to database 0 needs no right.
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


async def test_a_missing_right_frees_no_permits(server: RedisServer) -> None:
    """Without `+zcount` a call fails, and the permits of other holders stay."""
    runs = [Charge(concurrency_limit(1), "rl:{acl}:permits")]
    store = RedisStore(allow(server, *COUNTING), timeout=5)
    await store.submit(StoreRequest(runs, Operation.ACQUIRE, 7))
    await store.aclose()
    poor = RedisStore(allow(server, *(right for right in COUNTING if right != "+zcount")), timeout=5)
    with suppress(StoreError):
        await poor.submit(StoreRequest(runs, Operation.ACQUIRE, 8))
    await poor.aclose()
    with server.client() as client:
        assert client.zrange("rl:{acl}:permits", 0, -1) == [b"7"]


async def test_limits_alone_need_six_commands(server: RedisServer) -> None:
    """Limits need `~rl:* +evalsha +eval +time +mget +set +setrange`."""
    store = RedisStore(allow(server, *COUNTING[:6]), timeout=5)
    for left in (899, 898, 897):  # In a bucket of 22 minutes.
        assert (await store.charge(ALL[:1]))[0].remaining == left
    await store.submit(StoreRequest([ALL[0]._replace(cost=-1)], Operation.ADJUST))
    assert (await store.charge(ALL[:1], peek=True))[0].remaining == 898
    await store.aclose()


async def test_the_fewest_rights_of_a_limiter(server: RedisServer) -> None:
    """A limiter needs the rights for charges, `+hget +hscan +hset +hdel` for overrides, and `+zcard` for the workers."""
    url, who = allow(server, *COUNTING, *SHARING), Identity(token="t", org="o")
    settings = RateLimitSettings(
        store=url,
        store_timeout=5,
        limits=[Limit(name="token", rate="9/hour", per="token")],
        quotas=[Quota(name="quota", limit=9, period="month", per="org")],
        concurrency=[Concurrency(name="permits", limit=9, per="org")],
    )
    async with Limiter(settings) as limiter:
        decision = await limiter.check(who)
        assert decision.allowed and not decision.degraded
        await limiter.finish(decision)
        await limiter.overrides.set(policy="token", key={"token": "t"}, rate="20/hour")
        assert {limit.policy: limit.remaining for limit in (await limiter.peek(who)).limits}["token"] == 19
        await limiter.enforcer.workers.heartbeat()
        await limiter.overrides.delete(policy="token", key={"token": "t"})


@pytest.mark.parametrize("wrong", ["password", "rights", "keys"])
async def test_the_error_of_a_refused_login_contains_no_password(server: RedisServer, wrong: str) -> None:
    """A wrong password or a missing right raises `StoreError`, and neither its text nor its cause has the password."""
    url = allow(server, *(COUNTING if wrong != "rights" else ()))
    if wrong == "password":
        url = url.replace("limiter:", "limiter:hunter2-")
    store = RedisStore(url, timeout=5)
    with pytest.raises(StoreError, match="refused the login") as error:
        await store.charge([Charge(window_limit(9), "rl:{a}" if wrong != "keys" else "other:{a}")])
    shown = f"{error.value!r} {error.value} {error.value.__cause__!r} {store!r}"
    assert "hunter2" not in shown
    assert "p@ss" not in shown and quote("p@ss") not in shown
    await store.aclose()


async def test_a_limiter_with_the_fewest_rights_finds_the_server_again(server: RedisServer) -> None:
    """The circuit breaker opens while the server is down, and closes when it is available again."""
    url, who = allow(server, *COUNTING, *SHARING), Identity(token="t", org="o")
    limits = [Limit(name="token", rate="900/hour", per="token")]
    async with Limiter(RateLimitSettings(store=url, store_timeout=0.5, limits=limits)) as limiter:
        assert not (await limiter.check(who)).degraded
        server.stop()
        for _ in range(6):
            assert (await limiter.check(who)).degraded
        assert limiter.enforcer.circuit_breaker.is_open
        server.start()
        allow(server, *COUNTING, *SHARING)
        await until(lambda: not limiter.enforcer.circuit_breaker.is_open)


async def test_a_unix_socket(server: RedisServer, tmp_path: Path) -> None:
    """A store at a Unix socket counts, fails while the server is down, and counts again afterwards."""
    store, one = RedisStore(f"unix://{tmp_path / 's'}?db=0", timeout=1), Charge(window_limit(9), fresh_key())
    assert [(await store.charge([one]))[0].remaining for _ in range(3)] == [8, 7, 6]
    server.stop()
    with pytest.raises(StoreError) as error:
        await store.charge([one])
    assert str(tmp_path) not in str(error.value)
    server.start()
    assert (await store.charge([one]))[0].remaining == 8
    await store.aclose()
