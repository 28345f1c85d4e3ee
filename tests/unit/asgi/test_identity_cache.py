"""Identity cache: one look-up for many requests with the same credential, and never another caller's identity."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from ratelimit import ConfigurationError, Identity, IdentityCache, Limit, RateLimitMiddleware, RateLimitSettings
from tests.unit.asgi.test_refusal import app_of


class Time:
    """A clock in seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Users:
    """An `identify` that counts its look-ups; `x` is an unknown token, and `!` fails."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, connection: HTTPConnection) -> Identity | None:
        token = connection.headers.get("authorization", "")
        self.asked.append(token)
        await asyncio.sleep(0)
        if token == "!":
            raise LookupError("a secret")
        return None if token == "x" else Identity(token=token or None, org=f"org of {token}")


def request_by(token: str = "", *, client: str = "192.0.2.1", **headers: str) -> HTTPConnection:
    sent = {"authorization": token, **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items() if value]
    return HTTPConnection({"type": "http", "headers": raw, "client": (client, 1)})


async def result(found: Any) -> Identity:
    identity = await found if isinstance(found, Awaitable) else found
    assert isinstance(identity, Identity)
    return identity


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def users() -> Users:
    return Users()


async def test_a_credential_is_looked_up_once_for_its_ttl(time: Time, users: Users) -> None:
    """Another credential is another look-up; a cached one needs no await."""
    cached = IdentityCache(ttl=30, clock=time)(users)
    for token in ("a", "a", "b", "a"):
        assert await result(cached(request_by(token))) == Identity(token=token, org=f"org of {token}")
    assert users.asked == ["a", "b"]
    assert isinstance(cached(request_by("a")), Identity)
    time.now += 30
    await result(cached(request_by("a")))
    assert users.asked == ["a", "b", "a"]


async def test_a_sync_identify_is_cached_too(time: Time) -> None:
    """In either form of the constructor."""
    asked = []

    def identify(connection: HTTPConnection) -> Identity:
        asked.append(connection)
        return Identity(org="o")

    for cached in (IdentityCache(identify, clock=time), IdentityCache(clock=time)(identify)):
        assert [await result(cached(request_by("a"))) for _ in range(3)] == [Identity(org="o")] * 3
    assert len(asked) == 2


async def test_requests_without_a_credential_are_not_cached(time: Time, users: Users) -> None:
    """They may come from anybody."""
    cached = IdentityCache(clock=time)(users)
    for _ in range(2):
        await result(cached(request_by()))
    assert (users.asked, len(cached)) == (["", ""], 0)


async def test_an_unknown_caller_and_a_failure_are_remembered_for_a_second(time: Time, users: Users) -> None:
    """The failure is raised again, without its text."""
    cached = IdentityCache(ttl=30, clock=time)(users)
    for _ in range(3):
        assert await result(cached(request_by("x"))) == Identity()
    with pytest.raises(LookupError):
        await result(cached(request_by("!")))
    for _ in range(3):
        with pytest.raises(Exception, match="^LookupError in test_identity_cache.py, line") as error:
            await result(cached(request_by("!")))
        assert "secret" not in str(error.value)
    assert users.asked == ["x", "!"]
    time.now += 1
    await result(cached(request_by("x")))
    assert users.asked == ["x", "!", "x"]


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip"])
async def test_each_address_is_another_look_up(time: Time, header: str) -> None:
    """The identity may hold the address, or depend on it: as a peer, and as proxies name it."""

    def identify(connection: HTTPConnection) -> Identity:
        assert connection.client is not None
        address = connection.headers.get(header) or connection.client.host
        return Identity(token="a", plan="internal" if address.startswith("10.") else "public")

    cached = IdentityCache(identify, clock=time)
    for _ in range(2):
        assert (await result(cached(request_by("a", client="10.0.0.1")))).plan == "internal"
        assert (await result(cached(request_by("a", client="192.0.2.2")))).plan == "public"
        forwarded = {header.replace("-", "_"): "10.9.9.9"}
        assert (await result(cached(request_by("a", **forwarded)))).plan == "internal"


async def test_all_fields_of_a_credential_count(time: Time) -> None:
    """HTTP/2 clients split cookies, and the session may be in any of the parts."""

    def identify(connection: HTTPConnection) -> Identity:
        return Identity(token=connection.headers.getlist("cookie")[-1])

    def request(session: str) -> HTTPConnection:
        raw = [(b"cookie", b"theme=dark"), (b"cookie", session.encode())]
        return HTTPConnection({"type": "http", "headers": raw, "client": ("192.0.2.1", 1)})

    cached = IdentityCache(identify, clock=time)
    for session in ("sid=alice", "sid=bob", "sid=alice"):
        assert (await result(cached(request(session)))).token == session


async def test_simultaneous_requests_share_a_look_up(time: Time, users: Users) -> None:
    """One that is cancelled does not end it for the others; a failure is that of all."""
    cached = IdentityCache(clock=time)(users)
    asking = [asyncio.ensure_future(result(cached(request_by("a")))) for _ in range(20)]
    await asyncio.sleep(0)
    asking.pop(0).cancel()
    assert await asyncio.gather(*asking) == [Identity(token="a", org="org of a")] * 19
    failing = await asyncio.gather(*(result(cached(request_by("!"))) for _ in range(5)), return_exceptions=True)
    assert {type(error).__name__ for error in failing} == {"LookupError"}
    assert users.asked.count("a") == users.asked.count("!") == 1


def test_an_unknown_caller_is_looked_up_again_although_it_is_refused(time: Time) -> None:
    """Only identities are kept longer."""
    asked = []

    async def identify(connection: HTTPConnection) -> None:
        asked.append(1)

    app = app_of()
    settings = RateLimitSettings(limits=[Limit(name="all", rate="1/hour", per="method")])
    app.add_middleware(RateLimitMiddleware, settings=settings, identify=IdentityCache(clock=time)(identify))
    client = TestClient(app)
    for _ in range(5):
        client.get("/", headers={"authorization": "a"})
        time.now += 0.6
    assert len(asked) == 3


async def test_api_keys_cookies_and_other_credentials(time: Time) -> None:
    """An `identify` that reads more says what."""
    asked = []

    def identify(connection: HTTPConnection) -> Identity:
        asked.append(1)
        return Identity(org=connection.headers.get("x-tenant"))

    by_default = IdentityCache(identify, clock=time)
    for headers in ({"x_api_key": "k"}, {"x_api_key": "l"}, {"cookie": "sid=k"}):
        for _ in range(2):
            await result(by_default(request_by(**headers)))
    assert len(asked) == 3
    by_tenant = IdentityCache(identify, credential=lambda connection: connection.headers["x-tenant"], clock=time)
    for tenant in ("a", "b", "a"):
        assert await result(by_tenant(request_by("same", x_tenant=tenant))) == Identity(org=tenant)
    assert len(asked) == 5


async def test_the_one_used_longest_ago_goes_first(time: Time, users: Users) -> None:
    """Beyond `max`; invented tokens do not push out a caller that goes on."""
    cached = IdentityCache(max=3, clock=time)(users)
    await result(cached(request_by("a")))
    for number in range(10):
        await result(cached(request_by(f"invented {number}")))
        await result(cached(request_by("a")))
    assert (users.asked.count("a"), len(cached)) == (1, 3)


def refused_client(cached: IdentityCache) -> TestClient:
    app = app_of()
    settings = RateLimitSettings(limits=[Limit(name="token", rate="1/hour", per="token")])
    app.add_middleware(RateLimitMiddleware, settings=settings, identify=cached)
    return TestClient(app)


def test_a_refused_caller_is_not_looked_up_again(time: Time, users: Users) -> None:
    """As long as it goes on, up to ten times `ttl`; then its identity may have changed."""
    client = refused_client(IdentityCache(ttl=30, clock=time)(users))
    statuses = []
    for _ in range(20):
        statuses.append(client.get("/", headers={"authorization": "a"}).status_code)
        time.now += 29
    assert statuses == [200] + [429] * 19
    assert users.asked == ["a", "a"]


def test_what_was_found_is_in_the_state_of_the_request(time: Time, users: Users) -> None:
    """From the cache too; and a failed look-up falls back to the credential."""
    client = refused_client(IdentityCache(ttl=30, clock=time)(users))
    assert [client.get("/", headers={"authorization": f"Bearer {n % 2}"}).status_code for n in range(4)] == [
        200
    ] * 2 + [429] * 2
    assert client.get("/", headers={"authorization": "!", "x-api-key": "k"}).status_code == 200
    assert client.get("/", headers={"authorization": "!", "x-api-key": "k"}).status_code == 429


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ttl": 0}, "ttl: must be seconds above 0, got 0"),
        ({"ttl": "30"}, "ttl: must be seconds above 0"),
        ({"ttl": float("inf")}, "ttl: must be seconds above 0"),
        ({"max": 0}, "max: must be an integer between 1 and"),
        ({"max": 1.5}, "max: must be an integer between 1 and"),
        ({"credential": "authorization"}, "credential: must be a function"),
    ],
)
def test_wrong_options_fail_at_construction(wrong: dict[str, Any], message: str) -> None:
    """By their names."""
    with pytest.raises(ConfigurationError, match=message):
        IdentityCache(**wrong)


def test_a_cache_without_an_identify_says_what_to_write() -> None:
    """Instead of identifying no caller at all."""
    cache: Callable[[HTTPConnection], Any] = IdentityCache()
    with pytest.raises(ConfigurationError, match=r"IdentityCache\(ttl=30\)\(identify\)"):
        cache(request_by("a"))
    with pytest.raises(ConfigurationError, match=r"IdentityCache\(ttl=30\)\(identify\)"):
        RateLimitMiddleware(app_of(), identify=IdentityCache())
