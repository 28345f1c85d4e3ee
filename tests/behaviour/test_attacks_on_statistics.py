"""The promise: whoever may write to the Redis breaks no page by what lies under the keys of the statistics.

The attacker is another program that may write. Pages, CSV and metrics are served whatever it writes, what is
counted next is shown again, and the log names each broken entry once.
"""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ratelimit.enforcement.quota_directory import CAPACITY
from ratelimit.testing import ManualClock
from tests.support.surfaces import OPERATOR, REFUSALS, STATISTICS, Surfaces, lines_about, put, surfaces

SCRIPT = "<script>alert(1)</script>\x1b[2J\r\n\x00"
ODD = ["inf", "-inf", "1e308", "-1e308", str(2**53 + 1), "-5"]
TYPES = ["string", "list", "set", "hash", "zset", "stream"]


@pytest.fixture
async def attacked(redis_url: str, clock: ManualClock) -> AsyncIterator[Surfaces]:
    async with surfaces(redis_url, clock) as found:
        for _ in range(4):
            await found.ask()
        await found.poll()
        yield found


def keys_of(attacked: Surfaces, kind: str) -> list[bytes]:
    """Return the keys of the statistics with values of a type."""
    return [key for key in attacked.redis.keys(f"{STATISTICS}:*") if attacked.redis.type(key) == kind.encode()]


@pytest.mark.parametrize("kind", TYPES)
async def test_values_of_other_types_are_survived(attacked: Surfaces, kind: str) -> None:
    """All keys of the statistics hold something else: all pages are served, and what is counted next is shown again."""
    for key in attacked.redis.keys(f"{STATISTICS}:*"):
        put(attacked.redis, key, kind)
    assert await attacked.bad_pages() == {}
    await attacked.ask()
    for _ in range(2):
        await attacked.poll()
    assert await attacked.bad_pages() == {}
    statistics = attacked.limiter.statistics
    assert statistics is not None
    (minute,) = await statistics.minutes(1)
    assert minute.policies["agents"].over == 1
    assert [each.policy for each in await statistics.top("refused")][:1] == ["agents"]
    assert "agents" in {each.policy for each in await statistics.refusals.read()}


async def test_a_value_of_another_type_is_named_in_the_log_once(
    attacked: Surfaces, caplog: pytest.LogCaptureFixture
) -> None:
    """However often a page that needs it is loaded."""
    put(attacked.redis, REFUSALS, "list")
    for _ in range(3):
        assert (await attacked.client.get("/ratelimit/live", headers=OPERATOR)).status_code == 200
    assert len(lines_about(caplog.records, REFUSALS)) == 1


@pytest.mark.parametrize("number", [*ODD, "nan", "garbage", "", "1" * 5000])
async def test_odd_counts_are_survived(attacked: Surfaces, number: str) -> None:
    """Where a count is no number or a huge one, all pages are served, and the count begins anew."""
    for key in keys_of(attacked, "hash"):
        for field in attacked.redis.hkeys(key):
            attacked.redis.hset(key, field, number)
        attacked.redis.hset(key, mapping={"over:agents": number, b"\xff\xfe": 5, SCRIPT: 7, f"over:{SCRIPT}": 7})
    assert await attacked.bad_pages() == {}
    for _ in range(2):
        await attacked.ask()
        await attacked.poll()
    assert await attacked.bad_pages() == {}


async def test_a_broken_count_does_not_multiply_the_others(attacked: Surfaces) -> None:
    """One count that cannot be added to does not make the worker add the others again every second."""
    (hour,) = attacked.redis.keys(f"{STATISTICS}:3600:*")
    attacked.redis.hset(hour, "over:agents", "garbage")
    await attacked.ask()
    for _ in range(5):
        await attacked.poll()
    (minute,) = attacked.redis.keys(f"{STATISTICS}:60:*")
    assert attacked.redis.hget(minute, "over:agents") == b"2"


@pytest.mark.parametrize("number", ODD)
async def test_odd_ranks_are_survived(attacked: Surfaces, number: str) -> None:
    """Members that are no label, and numbers that no caller has used: all pages are served, and real callers come back."""
    for key in keys_of(attacked, "zset"):
        members = [b"\xff\xfe", SCRIPT, "token#nothex", "rl:{x}:calls:month:y", ":::", "a#b:c d\te", "x" * 100_000]
        attacked.redis.zadd(key, dict.fromkeys(members, float(number)))
    assert await attacked.bad_pages() == {}
    await attacked.ask(token="other")
    await attacked.poll()
    assert await attacked.bad_pages() == {}


@pytest.mark.parametrize("name", ["by-token", "calls", "stored"])
async def test_a_directory_of_strange_counters_is_survived(attacked: Surfaces, name: str) -> None:
    """The page of a quota and its CSV show the counters that there are, also beside keys that are none; no cell is a formula."""
    quota = next((key for key in attacked.redis.keys(f"{STATISTICS}:quota:{name}:*")), f"{STATISTICS}:quota:{name}:0")
    strange = [
        "=cmd|'/C calc'!A0",
        SCRIPT,
        "@SUM(1)",
        "rl:{a}:by-token:day:nothex",
        "rl:{x}:calls:month:=1+1",
        b"\xff",
        "rl",
    ]
    attacked.redis.zadd(quota, dict.fromkeys(strange, 5.0))
    attacked.redis.zadd(quota, {"rl:{big}:calls:month:big": 1e300, "rl:{less}:calls:month:less": -7})
    attacked.redis.rpush("rl:{list}:calls:month:list", "x")
    attacked.redis.zadd(quota, {"rl:{list}:calls:month:list": 3})
    page = await attacked.client.get(f"/ratelimit/quotas/{name}", headers=OPERATOR)
    table = await attacked.client.get(f"/ratelimit/quotas/{name}.csv", headers=OPERATOR)
    assert (page.status_code, table.status_code) == (200, 200)
    assert "<script>" not in page.text
    cells = [cell for row in csv.reader(io.StringIO(table.text)) for cell in row]
    assert [cell for cell in cells if cell[:1] in {"=", "+", "@", "\t", "\r"}] == []
    assert [cell for cell in cells if not cell.isprintable()] == []


LIMIT = ["agents", "limit", "token", 3, 0, 3600, 1.0, 5.0]
REFUSAL: dict[str, Any] = {
    "at": 1.0,
    "policy": "agents",
    "counter": "token#x",
    "caller": "token#x",
    "method": "GET",
    "route": "/v1/agents",
    "status": 429,
    "wait": 5.0,
    "shadow": False,
    "request_id": "x",
    "key": {},
    "limits": [LIMIT],
}
ANYTHING: list[Any] = [
    None,
    "x",
    SCRIPT,
    -1,
    1e308,
    float("nan"),
    float("inf"),
    2**80,
    [],
    {},
    [1],
    {"a": 1},
    True,
    "9" * 5000,
]


@pytest.mark.parametrize("field", REFUSAL)
async def test_forged_refusals_break_no_page(attacked: Surfaces, field: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a field of an entry of the stream holds, the page and the entry's own page are served, and the real ones shown."""
    forged = [json.dumps({**REFUSAL, field: value}).encode() for value in ANYTHING]
    places = [attacked.redis.xadd(REFUSALS, {"v": each}).decode() for each in forged]
    await check_live(attacked, places, caplog)


@pytest.mark.parametrize("position", range(18))
async def test_forged_limits_of_a_refusal_break_no_page(
    attacked: Surfaces, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stands where a number or a word of a limit is expected, from which the page makes the answer once more."""
    rest = [False, False, 1, 0.0, None, None, None, 429, "requests", None]
    limits = [[*(LIMIT + rest)[:position], value, *(LIMIT + rest)[position + 1 :]] for value in ANYTHING]
    forged = [json.dumps({**REFUSAL, "limits": [each]}).encode() for each in limits]
    places = [attacked.redis.xadd(REFUSALS, {"v": each}).decode() for each in forged]
    await check_live(attacked, places, caplog)


async def test_entries_that_are_no_refusals_break_no_page(attacked: Surfaces, caplog: pytest.LogCaptureFixture) -> None:
    """Not even JSON, or a list, or of another version."""
    entries = [b"", b"\x00", b"7", b"[]", b"null", b"{}", b"[" * 100_000, b"\x83\xa6policy", b'{"v": 2}', b'"x"']
    places = [attacked.redis.xadd(REFUSALS, {"v": each}).decode() for each in entries]
    places.append(attacked.redis.xadd(REFUSALS, {"w": "no such field"}).decode())
    await check_live(attacked, places, caplog)


async def check_live(attacked: Surfaces, places: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Check that the live page, its stream, and the page of each entry are served; the log has at most one line for each."""
    for _ in range(2):
        page = await attacked.client.get("/ratelimit/live", headers=OPERATOR)
        assert page.status_code == 200
        assert "agents" in page.text
        assert "<script>alert" not in page.text
    statuses = [
        (await attacked.client.get(f"/ratelimit/live/{place}", headers=OPERATOR)).status_code for place in places
    ]
    assert set(statuses) <= {200, 404}
    assert all(len(lines_about(caplog.records, f"entry {place} ")) <= 1 for place in places)
    assert not any("\x1b" in line for line in lines_about(caplog.records, ""))


async def test_a_stream_without_a_further_id_is_begun_anew(attacked: Surfaces) -> None:
    """Who writes the last possible id keeps later refusals from being seen only until the next one."""
    attacked.redis.xadd(REFUSALS, {"v": "x"}, id=f"{2**64 - 1}-{2**64 - 1}")
    await attacked.ask()
    await attacked.poll()
    statistics = attacked.limiter.statistics
    assert statistics is not None
    assert [each.policy for each in await statistics.refusals.read()][:1] == ["agents"]


async def test_workers_that_are_none_do_not_stay(attacked: Surfaces) -> None:
    """Who registers a million workers for ever would leave each real one no share in an outage; they are removed."""
    for key in ("rl:{workers}", "rl:{workers}:settings"):
        attacked.redis.zadd(key, {f"{SCRIPT}{n}@x": score for n in range(500) for score in [float("inf"), 1e300]})
    await attacked.poll()
    assert (await attacked.limiter.health()).workers == 1
    assert await attacked.bad_pages() == {}


async def test_a_hostile_name_stays_within_its_event(attacked: Surfaces) -> None:
    """A name with line breaks, or a forged refusal with them, begins no event of its own in the stream of the live page."""
    evil = "x\n\ndata: <script>alert(1)</script>\nid: 0\r\revent: owned"
    for _ in range(4):
        await attacked.ask(evil, evil)
    for field in ("policy", "counter", "caller", "method", "route", "request_id"):
        attacked.redis.xadd(REFUSALS, {"v": json.dumps({**REFUSAL, field: evil})})
    await attacked.poll()
    last = attacked.redis.xadd(REFUSALS, {"v": json.dumps(REFUSAL)}).decode()
    answer = await attacked.raw("GET", "/ratelimit/live/events?after=0", OPERATOR, until=f"id: {last}")
    assert answer.status == 200
    starts = {line.partition(":")[0] for line in answer.text.splitlines() if line}
    assert starts <= {"id", "data", "retry", ""}
    assert "<script>" not in answer.text
    ids = [line for line in answer.text.splitlines() if line.startswith("id:")]
    assert len(ids) == attacked.redis.xlen(REFUSALS)


async def test_a_directory_that_was_filled_up_is_cut(attacked: Surfaces) -> None:
    """However many callers another program, or a flood, has put into the directory of a quota, the next write leaves 20,000."""
    (quota,) = attacked.redis.keys(f"{STATISTICS}:quota:calls:*")
    attacked.redis.zadd(quota, {f"rl:{{o{number}}}:calls:month:o{number}": 1 for number in range(25_000)})
    await attacked.ask(org="new")
    await attacked.poll()
    assert attacked.redis.zcard(quota) == CAPACITY
    assert await attacked.bad_pages() == {}
