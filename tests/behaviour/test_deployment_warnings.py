"""The promise: what is wrong with a deployment is said when it starts, or with the first request that shows it."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.testclient import TestClient

from ratelimit import Identity, Limit, Limiter, RateLimitMiddleware, RateLimitSettings
from tests.support.asgi import ok
from tests.support.redis_server import RedisServer
from tests.support.servers import SERVERS, serving
from tests.support.waiting import until

BY_IP = Limit(name="ip", rate="9/minute", per="ip")


def log_of(
    caplog: pytest.LogCaptureFixture, *requests: dict[str, str], client: Any = ("192.0.2.1", 5), **settings: Any
) -> list[str]:
    """Return the log of an app that starts with these settings and gets these requests, by their headers."""
    caplog.clear()
    settings = {"limits": [BY_IP], **settings}
    app = Starlette(
        routes=[Route("/", ok)],
        middleware=[Middleware(RateLimitMiddleware, settings=RateLimitSettings(**settings))],
    )
    with TestClient(app, client=client) as test_client:
        for headers in requests:
            for _ in range(3):
                test_client.get("/", headers=headers)
    return caplog.messages


@pytest.mark.parametrize("server", SERVERS)
def test_memory_in_one_of_several_workers(server: str) -> None:
    """Each worker counts alone there, so that callers get more than their limit; one worker alone says nothing."""
    with serving(server, "tests.support.apps:app", workers=2) as several:
        warning = "memory:// counts in each process alone, and this is one of 2 workers"
        until(lambda: warning in several.log, "no worker has warned")  # The last one may still be starting.
    with serving(server, "tests.support.apps:app", workers=1) as one:
        assert "memory://" not in one.log


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_a_proxys_header_that_is_ignored(caplog: pytest.LogCaptureFixture, header: str) -> None:
    """Where no proxy is trusted; said once, and not at all where one is."""
    (line,) = log_of(caplog, {header: "198.51.100.1"}, {header: "198.51.100.2"})
    assert line.startswith(f"requests have {header.lower()}, which is ignored, since no proxy is trusted")
    assert log_of(caplog, {header: "198.51.100.1"}, trusted_proxies=["10.0.0.0/8"]) == []


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_everybody_is_trusted(caplog: pytest.LogCaptureFixture, network: str) -> None:
    """Any client may then choose its address."""
    (line,) = log_of(caplog, trusted_proxies=["10.0.0.0/8", network])
    assert line == f"trusted_proxies: {network!r} trusts everybody: any client may choose its own address [RL212]"


def test_a_socket_without_addresses(caplog: pytest.LogCaptureFixture) -> None:
    """Limits by ip do not apply there, unless the proxy that connects by it is trusted."""
    client = ("", 0)
    (line,) = log_of(caplog, {}, client=client)
    assert line.startswith("requests have no client address, as behind a Unix socket, so limits by ip do not apply")
    assert log_of(caplog, {"x-forwarded-for": "198.51.100.1"}, client=client, trusted_proxies=["unix"]) == []


def test_credentials_in_several_headers(caplog: pytest.LogCaptureFixture) -> None:
    """The default identify has to take one of them."""
    (line,) = log_of(caplog, {"authorization": "Bearer b", "x-api-key": "k"})
    assert line.startswith("requests have both Authorization and X-API-Key")


def test_tokens_that_nobody_verifies(caplog: pytest.LogCaptureFixture) -> None:
    """An invented token is a fresh caller, unless a limit by ip stands beside."""
    by_token = Limit(name="token", rate="9/minute", per="token")
    (line,) = log_of(caplog, limits=[by_token])
    assert line.startswith("the default identify verifies nothing")
    assert log_of(caplog, limits=[by_token, BY_IP]) == []


@pytest.mark.parametrize("name", ["ratelimit", "asgi-ratelimit"])
def test_another_distribution_owns_the_import_package(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whichever is installed later overwrites files of the other."""

    def version(distribution: str) -> str:
        if distribution != name:
            raise PackageNotFoundError
        return "1.0"

    monkeypatch.setattr("ratelimit.asgi.startup_checks.version", version)
    (line,) = log_of(caplog)
    assert line.startswith(f"the distribution {name!r} is installed too and has an import package `ratelimit`")


def test_nothing_is_said_where_nothing_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    """Neither at start nor with requests."""
    assert log_of(caplog, {"authorization": "Bearer b"}, {"x-api-key": "k"}, {}) == []


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), True),
        (("--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"), True),
        (("--maxmemory", "100mb", "--maxmemory-policy", "noeviction"), False),
        (("--maxmemory", "0", "--maxmemory-policy", "allkeys-lru"), False),
    ],
)
async def test_a_server_that_evicts_counters_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...], *, warned: bool
) -> None:
    """At the start of a worker: all counters have an expiry, so that each policy but `noeviction` may drop them.

    A login that may not ask is told nothing, and works.
    """
    server = RedisServer(tmp_path, *options)
    server.start()
    try:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", "-info", "-config")
        for login, expected in (("", warned), ("plain:pw@", False)):
            caplog.clear()
            url = server.url.replace("redis://", f"redis://{login}")
            async with Limiter(RateLimitSettings(store=url, limits=[Limit(name="a", rate="5/minute")])) as limiter:
                await limiter.poller.poll()
                await limiter.poller.poll()
                assert (await limiter.check(Identity(token="t"))).allowed
            assert sum("[RL413]" in each for each in caplog.messages) == expected
    finally:
        server.stop()
