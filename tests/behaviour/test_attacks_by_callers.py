"""The promise: a caller who chooses its own name gets no other's data or budget, breaks no page, and fills no memory.

Attackers are anonymous callers who invent identities, and callers with a valid token (tenants) who name themselves as they like:
like a key, a label, a formula, a line of the log, or with 8,000 characters.
"""

import csv
import io
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from click.testing import CliRunner

from ratelimit import Limit
from ratelimit.asgi.identity_cache import IdentityCache
from ratelimit.cli.main import cli
from ratelimit.enforcement.refusal_log import LINES_PER_SECOND
from ratelimit.enforcement.refusal_stream import KEPT
from ratelimit.enforcement.top_callers import CAPACITY
from ratelimit.testing import ManualClock
from tests.support.surfaces import CONTROLS, OPERATOR, REFUSALS, STATISTICS, Surfaces, headers_of, identify, surfaces

HOSTILE = [
    "x" * 8000,
    "\x1b[2J\x1b[31mred",
    "a\r\nCRITICAL ratelimit: all limits are off",
    "\x00",
    "\u202eevil\u2028\x85",
    "<script>alert(1)</script>",
    "=cmd|'/C calc'!A0",
    "+1",
    "-1",
    "@SUM(1)",
    '"} 1\nforged_metric{a="b',
]
"""Names that want to be code, or lines."""

LIKE_KEYS = [
    *(
        "{acme}",
        "}{",
        "{",
        "}",
        "acme}:agents:3600",
        "{acme}:calls:month",
        "rl:{acme}",
        "a:b",
        "::",
        "*",
        "=all",
        "=plan:pro",
    ),
    *("%", "%25", "%41", "A", "%h" + "0" * 40, "everybody", "anonymous", "token#14d60100", "org:acme", "ip:192.0.2.*"),
    *(
        "overrides",
        "statistics",
        "workers",
        "any",
        "#call:x",
        "#version",
        "!block:org=acme",
        "audit",
        "refusals",
        "None",
        "null",
    ),
    *(
        "ACME",
        "acme ",
        " acme",
        "acm\u0435",
        "e\u0301",
        "\u00e9",
        "../acme",
        "acme/",
        "acme\x00",
        "0",
        "-0",
        "00",
        "x" * 129,
        "y" * 129,
    ),
]
"""Names that want to be another's: of keys, labels, or of what differs by case, blanks and look alikes."""


@pytest.fixture
async def served(redis_url: str, clock: ManualClock) -> AsyncIterator[Surfaces]:
    async with surfaces(redis_url, clock) as found:
        yield found


@pytest.mark.parametrize("who", [("tk", None, None), (None, None, "192.0.2.7"), (None, "acme", None)], ids=str)
async def test_a_caller_without_some_names_breaks_no_page(
    served: Surfaces, who: tuple[str | None, str | None, str | None]
) -> None:
    """An anonymous caller is refused: operators still see it, and all else, though it has no organization or no token."""
    for _ in range(101):
        status = await served.ask(*who)
    assert status in {429, 403}
    await served.poll()
    assert await served.bad_pages() == {}
    entries = served.redis.xrange(REFUSALS)
    assert entries
    for place, _ in entries[:5]:
        page = await served.client.get(f"/ratelimit/live/{place.decode()}", headers=OPERATOR)
        assert page.status_code == 200


async def test_callers_named_like_others_have_budgets_of_their_own(served: Surfaces) -> None:
    """Whatever a tenant calls itself, as token and organization, it has its own three requests and takes none of another's."""
    await served.limiter.block({"org": "evil"})
    names = ["acme", *LIKE_KEYS, *HOSTILE]
    assert len(set(names)) == len(names)
    for _ in range(3):
        assert {name: await served.ask(name, name) for name in names} == dict.fromkeys(names, 200)
    assert {name: await served.ask(name, name) for name in names} == dict.fromkeys(names, 429)
    await served.poll()
    counters = served.redis.keys("rl:*:agents:3600:*")
    assert len(counters) == len(names)
    assert served.redis.type(CONTROLS) == b"hash"
    assert await served.ask(org="evil") == 403
    assert await served.bad_pages() == {}


async def test_a_name_is_bounded_and_escaped_wherever_it_is_kept(served: Surfaces) -> None:
    """No key or value that names a caller holds a control character, or grows with the name."""
    for name in [*HOSTILE, *LIKE_KEYS]:
        for _ in range(4):
            await served.ask(name, name)
    await served.poll()
    for key in served.redis.keys("*"):
        assert len(key) < 512
        assert key.decode("ascii").isprintable()
    for key in served.redis.keys(f"{STATISTICS}:*"):
        if served.redis.type(key) == b"zset":
            for member in served.redis.zrange(key, 0, -1):
                assert len(member) < 512
                assert member.replace(b"\t", b"").decode("ascii").isprintable()
    for _, fields in served.redis.xrange(REFUSALS):
        assert len(fields[b"v"]) < 8000


async def test_names_are_text_on_all_pages_in_csv_and_metrics(served: Surfaces) -> None:
    """No script, no formula, no forged metric, no terminal's escape, no direction of writing that is turned round."""
    for name in [*HOSTILE, *LIKE_KEYS]:
        for _ in range(4):
            await served.ask(name, name)
    await served.poll()
    own = [f"/ratelimit/caller?org={quote(name, safe='')}" for name in HOSTILE]
    pages = await served.read("/ratelimit/quotas/by-token.csv", *own)
    assert {page: each.status_code for page, each in pages.items() if each.status_code != 200} == {}
    for page, answer in pages.items():
        assert "<script>alert" not in answer.text, page
        if page not in own:
            seen = re.sub(
                r'type="hidden" name="[^"]*" value="[^"]*"', "", answer.text
            )  # A change names whom it is for.
            assert not {"\x1b", "\x00", "\u202e"} & set(seen), page
    for page in ("/ratelimit/quotas/calls.csv", "/ratelimit/quotas/by-token.csv"):
        rows = list(csv.reader(io.StringIO(pages[page].text)))
        assert {len(row) for row in rows} == {7}
        assert [cell for row in rows for cell in row if cell[:1] in set("=+@\t\r")] == []
    metrics = pages["/metrics"].text
    assert "forged_metric" not in metrics
    assert not [name for name in ("acme", "script", "everybody") if name in metrics]


async def test_names_forge_no_line_of_the_log(served: Surfaces, caplog: pytest.LogCaptureFixture) -> None:
    """A caller's name, its request id, its method and its path stay within their line, escaped and short."""
    caplog.set_level(logging.DEBUG, logger="ratelimit")
    for name in HOSTILE:
        for number in range(5):
            odd = {"x-request-id": quote(name, safe="\x1b<>=+\"'{} ")[:8000]}
            method = ["GET", "\x1b[31mGET", "G" * 8000, "get\r\nCRITICAL x", "POST"][number]
            path = f"/{quote(name)}" if number % 2 else "/v1/agents"
            await served.client.request(method, path, headers={**headers_of(name, name), **odd})
    await served.poll()
    messages = [record.getMessage() for record in caplog.records if record.name == "ratelimit"]
    assert messages
    assert [each for each in messages if not each.isprintable() or len(each) > 1000] == []
    for _, fields in served.redis.xrange(REFUSALS):
        assert len(fields[b"v"]) < 8000


def test_names_do_not_reach_a_terminal(redis_url: str, tmp_path: Path) -> None:
    """What operators wrote, or who writes to the Redis, is printed by the commands without an escape that a terminal obeys."""
    import redis  # noqa: PLC0415

    evil = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\nforged"
    entry = {"key": {"org": evil}, "until": None, "why": evil, "by": evil}
    with redis.Redis.from_url(redis_url) as server:
        server.hset(CONTROLS, "!block:org=x", json.dumps(entry))
        server.hset(CONTROLS, "!allow:org=x", json.dumps(entry))
        server.hset(CONTROLS, "agents:x", json.dumps({**entry, "policy": "agents", "rate": [5, 60], "plan": evil}))
        server.hset(CONTROLS, "!switch:shadow:*", json.dumps({**entry, "policy": evil, "mode": "shadow"}))
        server.hset(CONTROLS, "#version", "7")
        server.xadd(f"{CONTROLS}:audit", {"v": json.dumps({"at": 1, "action": evil, "entry": evil, "values": entry})})
    settings = tmp_path / "limits.toml"
    settings.write_text(f'store = "{redis_url}"\n[[limits]]\nname = "agents"\nrate = "3/hour"\nper = "token"\n')
    for command in (["override", "list"], ["block", "list"], ["allow", "list"], ["switches"], ["audit"]):
        for json_option in ([], ["--json"]):
            done = CliRunner().invoke(cli, [*command, "--config", str(settings), *json_option])
            assert done.exit_code == 0, done.output
            assert "forged" in done.output
            assert not {"\x1b", "\x07", "\x9b", "\r"} & set(done.output), command


async def test_a_flood_of_made_up_callers_is_bounded(redis_url: str, clock: ManualClock) -> None:
    """Two thousand invented tokens: rankings, the stream, the log, metrics and caches hold what they held with some hundred."""
    cache = IdentityCache(identify, ttl=3600, max=100, credential=lambda each: each.headers.get("x-token", ""))
    limits = [Limit(name="agents", rate="1/hour", per="token")]
    async with surfaces(redis_url, clock, identify=cache, limits=limits, quotas=[], concurrency=[]) as served:
        for number in range(2000):
            await served.ask(f"made-up-{number}", None)
            assert await served.ask(f"made-up-{number}", None) == 429
            if number == 200:
                await served.poll()
                metrics = await served.client.get("/metrics")
        await served.poll()
        assert len(cache) <= 100
        ranks = served.redis.keys(f"{STATISTICS}:top:*")
        assert {served.redis.zcard(key) for key in ranks} == {CAPACITY}
        assert served.redis.xlen(REFUSALS) <= 2 * KEPT
        assert len((await served.client.get("/metrics")).text) < 1.2 * len(metrics.text)
        page = await served.client.get("/ratelimit/policies/agents", headers=OPERATOR)
        assert (page.status_code, len(page.text) < 100_000) == (200, True)


async def test_a_flood_writes_few_lines(served: Surfaces, caplog: pytest.LogCaptureFixture) -> None:
    """However many callers are refused within a second, the log has fifty lines of them, and a summary of each policy."""
    caplog.set_level(logging.INFO, logger="ratelimit")
    for number in range(100):
        for _ in range(4):
            await served.ask(f"made-up-{number}", f"o{number}")
    lines = [each for each in caplog.records if each.getMessage().startswith(("refused by", "shadow policy"))]
    assert len(lines) <= 20 * LINES_PER_SECOND
    assert served.redis.xlen(REFUSALS) <= KEPT


async def test_a_tenant_reads_itself_alone(served: Surfaces) -> None:
    """Nothing in the address, the headers or the body of its request shows a tenant what another has."""
    for _ in range(3):
        await served.ask("victim", "acme")
    tries = [
        "?org=acme",
        "?token=victim",
        "?key=org%3Dacme",
        "?x-org=acme",
        "?identity=acme",
        "?org=acme&token_hash=1&caller=x",
    ]
    mine = {**headers_of("mine", "mine"), "x-original-org": "acme", "x-forwarded-user": "victim"}
    for path in ("/v1/rate-limits", "/v1/quotas", "/limits/"):
        expected = normalized(await served.client.get(path, headers=mine))
        for each in tries:
            assert normalized(await served.client.get(f"{path}{each}", headers=mine)) == expected
    left = {
        each["policy"]: each["remaining"] for each in (await served.client.get("/v1/rate-limits", headers=mine)).json()
    }
    assert left["agents"] == 3


def normalized(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.text


async def test_a_tenant_has_no_way_to_the_operators_pages(served: Surfaces) -> None:
    """A valid token is no operator: every page and route for operators answers 403, and changes nothing."""
    who = headers_of("tk", "acme")
    for page in (
        "/ratelimit/",
        "/ratelimit/live",
        "/ratelimit/live/events",
        "/ratelimit/quotas/calls.csv",
        "/internal/overrides",
    ):
        assert (await served.client.get(page, headers=who)).status_code == 403
    body = {"policy": "agents", "key": {}, "rate": "unlimited"}
    assert (await served.client.put("/internal/overrides", json=body, headers=who)).status_code == 403
    assert (
        await served.client.post("/internal/reset", json={"caller": {"org": "acme"}}, headers=who)
    ).status_code == 403
    assert (await served.client.post("/internal/usage", json={"org": "other"}, headers=who)).status_code == 403
    assert await served.limiter.overrides.list() == []
