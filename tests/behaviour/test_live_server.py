"""The promises on real servers: uvicorn, HTTP, worker processes and a real Redis."""

import asyncio
import socket
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from itertools import takewhile
from typing import Any

import httpx2
import redis

from ratelimit import Identity, Limiter, RateLimitSettings
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.uvicorn_server import uvicorn

THREE = [
    {"name": "token", "rate": "100/minute", "per": ["token"]},
    {"name": "org", "rate": "1000/minute", "per": ["org"]},
    {"name": "endpoint", "rate": "1000/minute", "per": ["endpoint", "token"]},
]
WHO = {"x-token": "t", "x-org": "o"}


async def at_once(url: str, times: int) -> list[int]:
    """Send requests in parallel and return their statuses."""
    limits = httpx2.Limits(max_connections=50)
    async with httpx2.AsyncClient(limits=limits, timeout=30, headers=WHO) as client:
        answers = await asyncio.gather(*(client.get(url) for _ in range(times)))
    return [answer.status_code for answer in answers]


def settings_for(redis_url: str) -> dict[str, Any]:
    return {"limits": THREE, "store": redis_url, "store_timeout": 10}


async def test_200_parallel_requests_over_4_workers_admit_exactly_100(redis_url: str) -> None:
    """All workers share one counter: of 200 parallel requests exactly 100 are served."""
    with uvicorn(settings_for(redis_url), "--workers", "4") as url:
        statuses = await at_once(url, 200)
    assert (statuses.count(200), statuses.count(429)) == (100, 100)


async def test_200_parallel_checks_in_one_process_admit_exactly_100(redis_url: str) -> None:
    """So it is without HTTP, where all checks travel in a few calls."""
    async with Limiter(RateLimitSettings.model_validate(settings_for(redis_url))) as limiter:
        decisions = await asyncio.gather(*(limiter.check(Identity(token="t", org="o")) for _ in range(200)))
    assert [decision.allowed for decision in decisions] == [True] * 100 + [False] * 100


def test_one_request_costs_one_command(redis_server: RedisServer, redis_url: str) -> None:
    """A request under three limits sends one command, as MONITOR shows."""
    with uvicorn(settings_for(redis_url)) as url, redis_server.client() as client:
        httpx2.get(url, headers=WHO)  # Connects and loads the script.
        seen = monitored(redis_server, client, lambda: httpx2.get(url, headers=WHO))
    # What happens once a second in the background may come in between.
    background = ("overrides", "statistics", "workers")
    sent = [
        command.split()[0]
        for origin, command in seen
        if origin != "lua" and not any(each in command for each in background)
    ]
    assert sent == ["EVALSHA"]
    by_script = [
        command for origin, command in seen if origin == "lua" and not any(each in command for each in background)
    ]
    assert {command.split()[0].upper() for command in by_script} <= {
        "TIME",
        "MGET",
        "SET",
        "SETRANGE",
    }


def monitored(server: RedisServer, client: redis.Redis, act: Callable[[], object]) -> list[tuple[str, str]]:
    """Return (origin, command) of every command that the server executes while `act` runs."""
    client.ping()
    with server.client() as watcher, watcher.monitor() as monitor:
        act()
        client.echo("the end")
        commands = iter(monitor.next_command, None)
        return [(c["client_type"], c["command"]) for c in takewhile(lambda c: "the end" not in c["command"], commands)]


def test_reset_is_within_a_second_of_date_and_retry_after(redis_url: str) -> None:
    """The three fields of a refusal name the same instant."""
    settings = settings_for(redis_url) | {"limits": [{"name": "t", "rate": "1/minute", "per": "token"}]}
    with uvicorn(settings) as url:
        httpx2.get(url, headers=WHO)
        refused = [httpx2.get(url, headers=WHO) for _ in range(5)]
    # The server makes its Date once a second, and on a busy machine later: that is not the limiter's.
    assert min(abs(int(each.headers["x-ratelimit-reset"]) - retry_at(each)) for each in refused) <= 1


def retry_at(refused: httpx2.Response) -> float:
    return parsedate_to_datetime(refused.headers["date"]).timestamp() + int(refused.headers["retry-after"])


def test_the_body_of_a_refused_request_is_not_read(redis_url: str) -> None:
    """A refused POST gets its response at once, although most of its body was never sent."""
    settings = settings_for(redis_url) | {"limits": [{"name": "t", "rate": "1/minute", "per": "token"}]}
    with uvicorn(settings) as url:
        httpx2.get(url, headers=WHO)
        port = httpx2.URL(url).port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Token: t\r\nX-Org: o\r\nContent-Length: {10**9}\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 10_000)
            assert connection.recv(100).startswith(b"HTTP/1.1 429 ")


def test_an_app_starts_and_serves_while_redis_is_unavailable() -> None:
    """Without a store the app starts, and each worker limits by itself until the store is available."""
    settings = settings_for(f"redis://127.0.0.1:{free_port()}/0")
    settings["limits"] = [{"name": "t", "rate": "2/minute", "per": "token"}]
    with uvicorn(settings) as url:
        statuses = [httpx2.get(url, headers=WHO).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_every_key_has_an_expiry(redis_server: RedisServer, redis_url: str) -> None:
    """Every key that a request writes expires."""
    with uvicorn(settings_for(redis_url)) as url:
        for n in range(3):
            httpx2.get(url, headers={**WHO, "x-token": f"t{n}"})
    with redis_server.client() as client:
        lives = {key: client.pttl(key) for key in client.scan_iter()}
    assert len([key for key in lives if b"#call:" not in key and b"{workers}" not in key]) == 7
    assert len(lives) == 7 + 3 + 2  # And the kept replies, and the registries of workers and of their settings.
    assert all(isinstance(ms, int) and 0 < ms < 200_000 for ms in lives.values()), lives


def test_a_flushed_server_is_used_again(redis_server: RedisServer, redis_url: str) -> None:
    """After SCRIPT FLUSH requests are still counted, and after FLUSHALL counting begins from zero."""
    with uvicorn(settings_for(redis_url)) as url, redis_server.client() as client:
        first = httpx2.get(url, headers=WHO).headers["x-ratelimit-remaining"]
        client.script_flush()
        second = httpx2.get(url, headers=WHO).headers["x-ratelimit-remaining"]
        client.flushall()
        third = httpx2.get(url, headers=WHO).headers["x-ratelimit-remaining"]
    assert [first, second, third] == ["99", "98", "99"]


def test_tokens_never_reach_the_store(redis_server: RedisServer, redis_url: str) -> None:
    """Redis gets only the hash of a token."""
    with uvicorn(settings_for(redis_url)) as url, redis_server.client() as client:
        httpx2.get(url, headers=WHO)
        seen = monitored(redis_server, client, lambda: httpx2.get(url, headers={**WHO, "x-token": "very-secret-token"}))
    assert any("EVALSHA" in command for _, command in seen)
    assert not any("very-secret-token" in command for _, command in seen)


def test_the_server_is_a_real_one(redis_server: RedisServer) -> None:
    """The tests run against a real Redis, not against an imitation."""
    with redis_server.client() as client:
        info: Any = client.info("server")
    assert isinstance(client, redis.Redis)
    assert int(info["redis_version"].split(".")[0]) >= 6
