"""The promise: what is kept ends by itself, and names nobody who is to be masked, wherever an intruder looks.

The attacker has got hold of a copy of the Redis, the log, the metrics or an operator's screen, now or in a year.
"""

import base64
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ratelimit import Identity, Limit, Limiter, Pacer, Quota, RedisStore
from ratelimit.cli.main import cli
from ratelimit.testing import ManualClock
from tests.support.instants import in_seconds
from tests.support.surfaces import CONTROLS, OPERATOR, REFUSALS, STATISTICS, Surfaces, settings_for, surfaces, values_of

TOKEN, ADDRESS, OTHER = "tk-Zx81-raw-secret-0xDEAD", "203.0.113.77", "2001:db8:77:1::5"
WHO = Identity(token=TOKEN, org="acme", ip=ADDRESS)
KEY = "0123456789abcdef0123456789abcdef"
DAY = 86_400
ENDLESS = {CONTROLS, "rl:{acme}:stored:level:acme"}
"""What has no end by itself: entries of the controls say when they end, and a level ends when it is empty."""


async def use_everything(served: Surfaces, clock: ManualClock | None = None) -> None:
    """Use every feature that writes to the store."""
    limiter, soon = served.limiter, datetime.now(UTC) + timedelta(hours=1)
    until = soon if clock is None else in_seconds(clock, 3600)
    for _ in range(5):
        await served.ask(TOKEN, "acme", ADDRESS)
        await served.ask(None, None, OTHER)
    async with limiter.slot("runs", WHO):
        await served.poll()
    await limiter.consume("stored", WHO, 9)
    await limiter.release("stored", WHO, 3)
    decision = await limiter.check(Identity(token="settled", org="acme"))
    await decision.settle({"calls": 7})
    await limiter.overrides.set(policy="by-token", key={"token": TOKEN}, rate=80, until=until, why="ticket 7", by="ada")
    await limiter.overrides.set(policy="calls", plan="pro", rate="unlimited")
    await limiter.overrides.delete(policy="by-token", key={"token": TOKEN})
    await limiter.block({"token": "another"}, until=until)
    await limiter.allowed.set({"org": "trusted"}, until=until)
    await limiter.fleet.shadow(policy="org", until=until)
    await limiter.fleet.pause(policy="tried", until=until)
    await limiter.reset(WHO, why="asked for", by="ada")
    for _ in range(4):
        await served.ask(TOKEN, "acme", ADDRESS)
    async with Pacer("100/second", per="hook", store=RedisStore(served.limiter.settings.store, timeout=5)) as pacer:
        await pacer.wait("hook-1")
    await served.poll()
    await served.read()


KEPT = {
    r".*:audit": 366 * DAY,
    r"rl:\{statistics\}:(3600|quota):.*": 90 * DAY,
    r"rl:\{statistics\}:.*": 25 * 3600,
    r".*(:#call:|\{workers\}|:#probe:).*": 60,
    r".*:month:.*": 64 * DAY,
    r".*:day:.*": 3 * DAY,
    r".*": 2 * DAY,
}
"""For how many seconds keys may be kept at most, as SECURITY.md says; the first pattern that fits."""


def longest(key: str) -> float:
    """Return for how many seconds a key may be kept at most."""
    return next(seconds for pattern, seconds in KEPT.items() if re.fullmatch(pattern, key))


async def test_whatever_is_written_ends_by_itself(redis_url: str) -> None:
    """After every feature was used, each key has an end, no later than SECURITY.md says; but for two that it names."""
    limits = [
        Limit(name="agents", rate="3/hour", per="token", burst=0.25),
        Limit(name="org", rate="100/hour", per="org"),
        Limit(name="tried", rate="1/hour", per="org", shadow=True),
        Limit(name="hot", rate="10000/minute", per=(), prefetch=10),
    ]
    async with surfaces(redis_url, limits=limits) as served:
        await use_everything(served)
        kept = {key.decode(): served.redis.pttl(key) / 1000 for key in served.redis.keys("*")}
        assert len(kept) > 25
        assert {key for key, seconds in kept.items() if seconds < 0} == ENDLESS
        assert {key: seconds for key, seconds in kept.items() if seconds > longest(key)} == {}
        await served.limiter.release("stored", WHO, 6)
        assert {key.decode() for key in served.redis.keys("*") if served.redis.ttl(key) < 0} == {CONTROLS}


async def test_a_control_that_has_ended_is_forgotten(redis_url: str, clock: ManualClock) -> None:
    """Who was blocked, and why, is not in the store for ever: a day after the end, a worker removes it by itself."""
    async with surfaces(redis_url, clock) as served:
        until = in_seconds(clock, 60)
        await served.limiter.block({"ip": ADDRESS}, until=until, why="abuse")
        await served.limiter.allowed.set({"org": "x"}, until=until)
        await served.limiter.overrides.set(policy="agents", key={}, rate="5/hour", until=until)
        await served.limiter.fleet.pause(until=until)
        await served.limiter.block({"org": "stays"})
        clock.advance(seconds=61)
        await served.poll()
        assert served.redis.hlen(CONTROLS) == 6
        clock.advance(seconds=DAY)
        await served.poll()
        assert set(served.redis.hkeys(CONTROLS)) == {b"#version", b"!block:org=stays"}
        assert await served.ask(org="stays") == 403


async def test_an_onlooker_removes_nothing(redis_url: str, clock: ManualClock) -> None:
    """A command line on a machine whose clock is a month ahead ends nothing for the fleet."""
    async with surfaces(redis_url, clock) as served:
        await served.limiter.block({"org": "evil"}, until=in_seconds(clock, 60))
        onlooker = Limiter(settings_for(redis_url), clock=ManualClock(clock() + 31 * DAY * 1_000_000))
        onlooker.enforcer.workers.is_onlooker = True
        async with onlooker:
            await onlooker.poller.poll()
        await served.poll()
        assert await served.ask(org="evil") == 403


def forms_of(secret: str) -> list[bytes]:
    """Return a secret as it is, and as it may be found elsewhere: encoded, or hashed without the key."""
    raw = secret.encode()
    hashes = [blake2b(raw, digest_size=size).hexdigest().encode() for size in (16, 20, 32, 64)]
    return [raw, raw.hex().encode(), base64.b64encode(raw)[:-4], base64.urlsafe_b64encode(raw)[:-4], raw[::-1], *hashes]


def found_in(what: Any, secrets: Sequence[str]) -> list[str]:
    """Return the secrets that are somewhere in this."""
    text = (
        what
        if isinstance(what, bytes)
        else what.encode("utf-8", "replace")
        if isinstance(what, str)
        else repr(what).encode()
    )
    return [secret for secret in secrets if any(form in text for form in forms_of(secret))]


MASKED: dict[str, Any] = {
    "hashed_dimensions": ["ip"],
    "hash_key": KEY,
    "quotas": [
        Quota(name="calls", limit=50, per="org", period="month"),
        Quota(name="by-token", limit=50, per="token", period="day"),
        Quota(name="by-address", limit=50, per="ip", period="day"),
        Quota(name="stored", limit=50, per="org", manual=True),
    ],
}
SECRETS = [TOKEN, ADDRESS, "2001:db8:77:1"]


async def test_masked_callers_are_found_nowhere(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """With hashed addresses and a hash key: no token and no address in any key or value, line, metric, page or CSV."""
    caplog.set_level(logging.DEBUG)
    async with surfaces(redis_url, **MASKED) as served:
        await use_everything(served)
        for key in ({"token": TOKEN}, {"ip": ADDRESS}):
            await served.limiter.block(key, why="abuse")
            await served.limiter.allowed.set(key)
        await served.limiter.overrides.set(policy="agents", key={"token": TOKEN}, rate="9/hour")
        await served.limiter.overrides.set(policy="by-address", key={"ip": ADDRESS}, rate=9)
        for _ in range(3):
            await served.ask(TOKEN, "acme", ADDRESS)
        await served.poll()
        more = [f"/ratelimit/live/{place.decode()}" for place, _ in served.redis.xrange(REFUSALS)]
        pages = await served.read(
            "/ratelimit/quotas/by-address", "/ratelimit/quotas/by-address.csv", "/ratelimit/quotas/by-token.csv", *more
        )
        assert {page: each.status_code for page, each in pages.items() if each.status_code != 200} == {}
        assert {
            page: bad for page, each in pages.items() if (bad := found_in(each.text + str(each.headers), SECRETS))
        } == {}
        kept = values_of(served.redis)
        assert len(kept) > 25
        assert {key: bad for key, value in kept.items() if (bad := found_in((key, value), SECRETS))} == {}
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("ratelimit")]
    assert lines
    assert [line for line in lines if found_in(line, SECRETS)] == []


async def test_a_search_for_a_token_does_not_keep_it(redis_url: str) -> None:
    """The console hashes the token that an operator types: it is in no address, page or cookie of the answers."""
    async with surfaces(redis_url, **MASKED) as served:
        token = "0" * 32
        sent = {**OPERATOR, "cookie": f"ratelimit_csrf={token}", "sec-fetch-site": "same-origin"}
        form = {"csrf": token, "kind": "token", "value": TOKEN}
        answer = await served.client.post("/ratelimit/callers/search", data=form, headers=sent)
        assert answer.status_code == 303
        assert found_in(answer.text + str(answer.headers), SECRETS) == []


async def test_addresses_are_masked_for_people_by_default(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without hashed addresses, counters know them; people, logs, metrics, rankings and the stream of refusals do not."""
    caplog.set_level(logging.DEBUG)
    async with surfaces(redis_url, quotas=MASKED["quotas"]) as served:
        for _ in range(101):
            await served.ask(None, None, ADDRESS)
        await served.poll()
        pages = await served.read("/ratelimit/quotas/by-address", "/ratelimit/quotas/by-address.csv")
        assert {page: bad for page, each in pages.items() if (bad := found_in(each.text, SECRETS))} == {}
        known = {key.decode() for key, value in values_of(served.redis).items() if found_in((key, value), SECRETS)}
        quotas = {key for key in known if key.startswith(f"{STATISTICS}:quota:by-address:")}
        assert len(quotas) == 1
        assert all(key.startswith(f"rl:{{{ADDRESS}}}:") for key in known - quotas)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("ratelimit")]
    assert [line for line in lines if found_in(line, SECRETS)] == []


def test_the_command_line_prints_no_token(redis_url: str, tmp_path: Path) -> None:
    """What an operator types as a token is printed as its hash: terminals are kept, and shared."""
    file = tmp_path / "limits.toml"
    file.write_text(
        f'store = "{redis_url}"\nstatistics = true\nhash_key = "{KEY}"\n[[limits]]\nname = "agents"\nrate = "3/hour"\nper = "token"\n'
    )
    commands = [
        ["block", "set", "--key", f"token={TOKEN}"],
        ["block", "list", "--json"],
        ["override", "set", "--policy", "agents", "--key", f"token={TOKEN}", "--rate", "9/hour"],
        ["override", "list"],
        ["explain", "GET", "/v1/agents", "--token", TOKEN],
        ["usage", "--token", TOKEN],
        ["reset", "--token", TOKEN],
        ["audit", "--json"],
    ]
    for command in commands:
        done = CliRunner().invoke(cli, [*command, "--config", str(file)])
        assert done.exit_code in {0, 1}, (command, done.output)
        assert found_in(done.output, [TOKEN]) == [], command
