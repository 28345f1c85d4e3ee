"""The promise: an operator's mistake is refused, or bounded, and said; what held before goes on.

The attacker is an operator in a hurry: rates of nothing or of everything, ends in the past or never, settings that are wrong, half
written, or older than what runs.
"""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ratelimit import ConfigurationError, Identity, Limiter, RateLimitSettings
from ratelimit.cli.main import cli
from ratelimit.testing import ManualClock
from tests.support.instants import in_seconds
from tests.support.surfaces import OPERATOR, Surfaces, surfaces

WHO = Identity(token="tk", org="acme")


@pytest.fixture
async def served(redis_url: str, clock: ManualClock) -> AsyncIterator[Surfaces]:
    async with surfaces(redis_url, clock) as found:
        yield found


async def test_an_override_of_nothing_refuses_and_can_be_taken_back(served: Surfaces) -> None:
    """A rate of 0 for everybody refuses all; the console and the routes still answer, and the next request after its end is served."""
    body = {"policy": "agents", "key": {}, "rate": "0/hour", "why": "oops"}
    assert (await served.client.put("/internal/overrides", json=body, headers=OPERATOR)).status_code == 200
    assert await served.ask() == 429
    assert await served.bad_pages() == {}
    query = {"policy": "agents", "key": "{}"}
    assert (await served.client.delete("/internal/overrides", params=query, headers=OPERATOR)).json() == {
        "removed": True
    }
    assert await served.ask() == 200


RATES: list[Any] = [
    2**63,
    10**15,
    -1,
    2**53 + 1,
    1.5,
    float(2**63),
    True,
    None,
    "",
    "9" * 5000,
    "5/0s",
    "-5/minute",
    "1e9/hour",
]
RATES += ["unlimited ", "UNLIMITED", "infinite", "5/century", "5/11 years", [5, 60], {"limit": 5}, "\x00", "٣/hour"]


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: repr(rate)[:20])
async def test_a_rate_that_is_none_changes_nothing(served: Surfaces, rate: Any) -> None:
    """Beyond what is exact, negative, fractions, or other spellings of unlimited: 422, and the rate before holds."""
    body = json.dumps({"policy": "agents", "key": {}, "rate": rate}).encode()
    headers = {**OPERATOR, "content-type": "application/json"}
    assert (await served.client.put("/internal/overrides", content=body, headers=headers)).status_code == 422
    assert [await served.ask() for _ in range(4)] == [200, 200, 200, 429]
    assert await served.limiter.overrides.list() == []


ENDS = [
    "2001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2035-01-01T00:00:00",
    "tomorrow",
    "",
    -1,
    0,
]
ENDS += [2**63, 1e308, "NaN", True, [], "2035-02-30T00:00:00Z"]


@pytest.mark.parametrize("end", ENDS, ids=str)
async def test_an_end_that_is_none_changes_nothing(served: Surfaces, end: Any) -> None:
    """In the past, without a zone, or beyond all calendars: 422 for overrides and blocks, and nothing is written."""
    bodies: dict[str, dict[str, Any]] = {
        "overrides": {"policy": "agents", "key": {}, "rate": "unlimited"},
        "blocks": {"key": {"org": "acme"}},
    }
    for path, body in bodies.items():
        sent = await served.client.put(f"/internal/{path}", json={**body, "until": end}, headers=OPERATOR)
        assert sent.status_code == 422
    assert await served.ask() == 200
    assert await served.limiter.audit.list() == []


@pytest.mark.parametrize("days", [None, 32, 366, 2_000_000])
async def test_a_pause_that_would_not_end_is_refused(served: Surfaces, clock: ManualClock, days: int | None) -> None:
    """By the library, by the console and by the command line: nothing would be limited for months."""
    until = None if days is None else in_seconds(clock, days * 86_400)
    with pytest.raises(ConfigurationError, match=r"until: .* \[RL309\]"):
        await served.limiter.fleet.pause(until=until, why="incident")
    token = "0" * 32
    chosen = {"for": "no end"} if until is None else {"for": "the day", "day": f"{until:%Y-%m-%d}"}
    form = {"csrf": token, "why": "x", **chosen}
    sent = await served.client.post(
        "/ratelimit/change/pause",
        data=form,
        headers={**OPERATOR, "cookie": f"ratelimit_csrf={token}", "sec-fetch-site": "same-origin"},
    )
    assert sent.status_code == 422
    assert [await served.ask() for _ in range(4)] == [200, 200, 200, 429]


def test_the_command_line_pauses_for_no_longer_either(redis_url: str, tmp_path: Path) -> None:
    """With an end that is not one, none, or too far away, the exit code says so, and nothing is paused."""
    file = tmp_path / "limits.toml"
    file.write_text(f'store = "{redis_url}"\n[[limits]]\nname = "agents"\nrate = "3/hour"\nper = "token"\n')
    for options in (
        [],
        ["--until", "60d"],
        ["--until", "-1h"],
        ["--until", "2001-01-01T00:00:00Z"],
        ["--until", "never"],
    ):
        done = CliRunner().invoke(cli, ["pause", *options, "--config", str(file)])
        assert done.exit_code == 2, (options, done.output)
    assert "all policies are enforced" in CliRunner().invoke(cli, ["switches", "--config", str(file)]).output


async def test_a_block_of_everybody_leaves_the_operators_in(served: Surfaces) -> None:
    """A network of all addresses is blocked: the console and the routes for operators still answer, so it can be taken back."""
    await served.limiter.block({"ip": "0.0.0.0/0"}, why="oops")
    assert await served.ask(ip="192.0.2.1") == 403
    assert [
        page for page, status in (await served.bad_pages()).items() if page.startswith(("/ratelimit", "/internal"))
    ] == []
    query = {"key": '{"ip": "0.0.0.0/0"}'}
    assert (await served.client.delete("/internal/blocks", params=query, headers=OPERATOR)).json() == {"removed": True}
    assert await served.ask(ip="192.0.2.1") == 200


DEEP = [
    "[" * 10_000,
    '{"a":' * 2000,
    "{",
    "[]",
    "7",
    '"org"',
    "null",
    "",
    '{"org": null}',
    '{"org": {}}',
    '{"": ""}',
    '{"org": ""}',
]
DEEP += ['{"nosuch": "x"}', '{"org": "\\ud800"}', '{"token_hash": "x"}', '{"org": "' + "x" * 60_000 + '"}', "9" * 5000]


@pytest.mark.parametrize("key", DEEP, ids=range(len(DEEP)))
async def test_a_key_that_is_none_removes_nothing(served: Surfaces, key: str) -> None:
    """Whatever stands in the address where a key is expected: no 5xx, and what is blocked stays blocked."""
    await served.limiter.block({"org": "evil"})
    removed = await served.client.delete("/internal/blocks", params={"key": key}, headers=OPERATOR)
    assert removed.status_code == 422 or removed.json() == {"removed": False}
    params = {"policy": "org", "key": key}
    override = await served.client.delete("/internal/overrides", params=params, headers=OPERATOR)
    assert override.status_code == 422 or override.json() == {"removed": False}
    assert await served.ask(org="evil") == 403


TOML = """
store = "{url}"
[[limits]]
name = "agents"
rate = "{rate}"
per = "token"
"""


@pytest.fixture
async def watched(redis_url: str, clock: ManualClock, tmp_path: Path) -> AsyncIterator[tuple[Limiter, Path]]:
    """Yield a limiter that watches its file, of which two requests are used up."""
    file = tmp_path / "limits.toml"
    file.write_text(TOML.format(url=redis_url, rate="3/hour"))
    settings = RateLimitSettings.from_file(file, watch=True, store_timeout=5)
    async with Limiter(settings, clock=clock) as limiter:
        for _ in range(2):
            assert (await limiter.check(WHO)).allowed
        yield limiter, file


async def looked(limiter: Limiter) -> None:
    """Let the worker look at its file until it believes that nobody writes any more."""
    for _ in range(3):
        await limiter.poller.poll()


GOOD = TOML.format(url="{url}", rate="9/hour")
BROKEN = [
    *(
        "",
        "   \n",
        GOOD[: len(GOOD) // 2],
        'rate = "',
        "\x00\x01\xff",
        "[[limits]]\n" * 3,
        "[" * 50_000,
        "a = " + "[" * 50_000,
    ),
    *(
        GOOD.replace("9/hour", each)
        for each in ("many", "-1/hour", "9/0s", "1e400/hour", "9" * 5000 + "/hour", "9/century")
    ),
    *(
        GOOD.replace('per = "token"', each)
        for each in ("per = 7", 'per = "nosuch"', 'per = "token"\nnosuch = 1', 'per = ["token", "token"]')
    ),
    *(GOOD.replace("store", each) for each in ("stroe", "version = 2\nstore")),
    GOOD + GOOD.partition("\n[[")[1] + GOOD.partition("\n[[")[2],
    GOOD.replace("{url}", "redis://other.test:6379/0"),
    GOOD.replace("{url}", "memory://"),
    GOOD.replace("[[limits]]", 'key_prefix = "other"\n[[limits]]'),
    GOOD.replace("[[limits]]", 'hash_key = "0123456789abcdef0123456789abcdef"\n[[limits]]'),
    GOOD.replace("[[limits]]", "statistics = true\n[[limits]]"),
    GOOD.replace("[[limits]]", 'trusted_proxies = ["0.0.0.0/0"]\n[[limits]]'),
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
async def test_a_file_that_is_wrong_changes_nothing(
    watched: tuple[Limiter, Path], redis_url: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Broken, half written, or with another store or secret: the settings before hold, the log says so once, and mends are taken."""
    limiter, file = watched
    before = limiter.settings
    file.write_text(text.replace("{url}", redis_url), "utf-8", "surrogateescape")
    for _ in range(3):
        await looked(limiter)
    assert limiter.settings is before
    said = [record for record in caplog.records if record.levelno >= logging.WARNING and record.name == "ratelimit"]
    assert len([record for record in said if "RL511" not in record.getMessage()]) == 1
    assert len(said[0].getMessage()) < 5000
    assert [(await limiter.check(WHO)).allowed for _ in range(2)] == [True, False]
    file.write_text(GOOD.replace("{url}", redis_url))
    await looked(limiter)
    assert [(await limiter.check(WHO)).allowed for _ in range(7)] == [True] * 6 + [False]


@pytest.mark.parametrize("instead", ["nothing", "a folder", "a link to nowhere", "a link to itself"])
async def test_a_file_that_is_gone_changes_nothing(
    watched: tuple[Limiter, Path], instead: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Deleted, or with something else in its place: the settings before hold, and the log says so."""
    limiter, file = watched
    file.unlink()
    if instead == "a folder":
        file.mkdir()
    elif instead.startswith("a link"):
        file.symlink_to("nowhere" if "nowhere" in instead else file.name)
    for _ in range(3):
        await looked(limiter)
    assert [(await limiter.check(WHO)).allowed for _ in range(2)] == [True, False]
    said = [each for each in caplog.messages if str(file) in each or "reload" in each]
    assert len(said) == 1


async def test_another_period_gives_no_other_budget(watched: tuple[Limiter, Path], redis_url: str) -> None:
    """Who reloads with another period gives no caller a new window: its counter begins with what the old one holds."""
    limiter, file = watched
    for period, admitted in (("minute", 1), ("hour", 0), ("minute", 0), ("day", 0)):
        file.write_text(TOML.format(url=redis_url, rate=f"3/{period}"))
        await looked(limiter)
        assert sum([(await limiter.check(WHO)).allowed for _ in range(6)]) == admitted


async def test_a_worker_of_an_older_version_and_a_newer_one_share_what_both_know(
    redis_url: str, clock: ManualClock
) -> None:
    """Half of a fleet has settings without a policy: its overrides and switches hold where it is known, and harm nobody else."""
    async with surfaces(redis_url, clock) as newer, surfaces(redis_url, clock, limits=[], quotas=[]) as older:
        await newer.limiter.overrides.set(policy="agents", key={}, rate="1/hour")
        await newer.limiter.fleet.shadow(policy="org")
        await older.poll()
        assert [await older.ask() for _ in range(4)] == [200] * 4
        assert [await newer.ask() for _ in range(2)] == [200, 429]
        assert {page for page, status in (await older.bad_pages()).items() if status >= 500} == set()
