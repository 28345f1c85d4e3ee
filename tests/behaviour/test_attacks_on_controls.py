"""The promise: whoever may write to the Redis, by mistake or on purpose, breaks no worker by what lies under the keys of the controls.

The attacker is another program that may write: it can change what holds (SECURITY.md says so). Whatever it writes, workers go
on, no answer is a 5xx, what cannot be read has no effect and admits nobody, and the log says once where it lies.

It tests `stores.redis.foreign_value`.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ratelimit.testing import ManualClock
from tests.support.instants import in_seconds
from tests.support.surfaces import AUDIT, CONTROLS, OPERATOR, WORKERS, Surfaces, lines_about, put, surfaces

NOT_JSON = [b"", b"\x00", b"\xc1garbage", b"\x83\xa6policy\xa6agents", b"{", b"[" * 100_000, b'{"a":' * 100_000]
"""Nothing, control bytes, msgpack, JSON that breaks off, and JSON that is nested deeply."""

NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "-1",
    "1e999",
    str(2**53 + 1),
    str(2**63),
    "1" * 5000,
    "true",
    '"x"',
    "[]",
    "{}",
]
"""What may stand where a number is expected."""


@pytest.fixture
async def attacked(redis_url: str, clock: ManualClock) -> AsyncIterator[Surfaces]:
    async with surfaces(redis_url, clock) as found:
        yield found


def write(attacked: Surfaces, name: str | bytes, value: bytes | str) -> None:
    """Write an entry as the package would, with another version."""
    attacked.redis.hset(CONTROLS, mapping={name: value, "#version": str(time.time_ns())})


@pytest.mark.parametrize("kind", ["agents:=all", "!block:org=acme", "!allow:org=acme", "!switch:paused:*"])
async def test_garbage_in_an_entry_has_no_effect(
    attacked: Surfaces, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No rate is another, nobody is blocked or allowed, nothing is paused; all pages are served, and the log names each entry once."""
    for number, garbage in enumerate(NOT_JSON):
        write(attacked, f"{kind}{number}", garbage)
    for _ in range(3):
        await attacked.poll()
    assert [await attacked.ask() for _ in range(5)] == [200, 200, 200, 429, 429]
    assert await attacked.bad_pages() == {}
    for number in range(len(NOT_JSON)):
        assert len(lines_about(caplog.records, f"'{kind}{number}'")) == 1


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("agents:=all", '{"policy": "agents", "key": {}, "rate": [%s, 60], "until": null}'),
        ("agents:=all", '{"policy": "agents", "key": {}, "rate": [5, %s], "until": null}'),
        ("calls:=all", '{"policy": "calls", "key": {}, "rate": %s, "until": null}'),
        ("!allow:org=acme", '{"key": {"org": "acme"}, "until": [%s]}'),
        ("!switch:paused:*", '{"policy": null, "mode": "paused", "until": %s}'),
    ],
)
async def test_odd_numbers_admit_nobody(attacked: Surfaces, name: str, template: str, number: str) -> None:
    """An end or a rate that is no number, negative, or beyond what is exact never lifts a limit."""
    write(attacked, name, template % number)
    await attacked.poll()
    statuses = [await attacked.ask() for _ in range(60)]
    assert set(statuses) <= {200, 403, 429}
    assert statuses.count(200) < 60
    assert await attacked.bad_pages() == {}


async def test_a_pause_without_an_end_is_none(attacked: Surfaces, caplog: pytest.LogCaptureFixture) -> None:
    """An entry that would pause all policies for ever is not what an operator can write, and has no effect."""
    write(attacked, "!switch:paused:*", '{"policy": null, "mode": "paused", "until": null}')
    await attacked.poll()
    assert [await attacked.ask() for _ in range(4)] == [200, 200, 200, 429]
    assert len(lines_about(caplog.records, "!switch:paused:*")) == 1
    assert await attacked.limiter.fleet.list() == []


async def test_an_entry_of_fifty_megabytes_stops_nobody(attacked: Surfaces, caplog: pytest.LogCaptureFixture) -> None:
    """A huge entry is not even parsed; entries beside it hold, and the log has a line, not its text."""
    await attacked.limiter.block({"org": "evil"})
    huge = json.dumps({"key": {"org": "acme"}, "until": None, "why": "x" * 50_000_000})
    write(attacked, "!block:org=acme", huge)
    await attacked.poll()
    began = time.monotonic()
    assert (await attacked.ask(), await attacked.ask(org="evil")) == (200, 403)
    assert time.monotonic() - began < 2
    (line,) = lines_about(caplog.records, "'!block:org=acme'")
    assert len(line) < 1000
    assert await attacked.bad_pages() == {}


async def test_names_with_control_bytes_stay_in_their_line(
    attacked: Surfaces, caplog: pytest.LogCaptureFixture
) -> None:
    """The log, and pages, show a forged name or mode as text: no line begins where the attacker wants, no terminal obeys."""
    forged = "\x1b[2J\r\nCRITICAL ratelimit: all limits are off\x00"
    write(attacked, f"!block:{forged}", "[]")
    write(attacked, "!switch:shadow:*", json.dumps({"policy": None, "mode": forged, "until": None}))
    write(attacked, "agents:x", json.dumps({"policy": "agents", "key": {}, "rate": forged, "until": None}))
    write(attacked, f"!block:{'n' * 1_000_000}", "[]")
    await attacked.poll()
    assert await attacked.ask() == 200
    for line in lines_about(caplog.records, ""):
        assert not any(part.startswith("CRITICAL") for part in line.splitlines())
        assert not {"\x1b", "\r", "\x00"} & set(line)
        assert len(line) < 5000


async def test_texts_of_entries_are_text_on_every_page(attacked: Surfaces) -> None:
    """Who made an entry, why, and for whom is written by whoever writes to the Redis: no page takes it for markup."""
    script = "<script>alert(1)</script>\x1b[2J\x00"
    entry = {"key": {"org": script}, "until": None, "why": script, "by": script}
    write(attacked, "!block:org=x", json.dumps(entry))
    write(attacked, "agents:x", json.dumps({**entry, "policy": "agents", "rate": [5, 60], "plan": script}))
    attacked.redis.xadd(AUDIT, {"v": json.dumps({"at": 1, "action": script, "entry": script, "values": entry})})
    await attacked.poll()
    pages = await attacked.read()
    assert {page: each.status_code for page, each in pages.items() if each.status_code != 200} == {}
    assert [page for page, each in pages.items() if "<script>alert" in each.text and "json" not in _kind(each)] == []


def _kind(answer: Any) -> str:
    return str(answer.headers.get("content-type", ""))


async def test_many_broken_entries_do_not_flood_the_log(attacked: Surfaces, caplog: pytest.LogCaptureFixture) -> None:
    """Of ten thousand entries that cannot be read, the log names some, and says how many there are."""
    values = {f"!block:org={number}": "garbage" for number in range(10_000)}
    attacked.redis.hset(CONTROLS, mapping={**values, "#version": "5"})
    await attacked.poll()
    assert attacked.limiter.blocks.unreadable == 10_000
    assert len(caplog.records) < 50
    assert [await attacked.ask() for _ in range(4)] == [200, 200, 200, 429]


@pytest.mark.parametrize("version", ["", "x", "-1", "9" * 5000, "\x00", "1e5", "²"])
async def test_an_unknown_version_hides_no_change(attacked: Surfaces, version: str) -> None:
    """Whatever the version is, the entries are read, and what an operator changes next holds."""
    blocked = json.dumps({"key": {"org": "evil"}, "until": None})
    attacked.redis.hset(CONTROLS, mapping={"!block:org=evil": blocked, "#version": version})
    await attacked.poll()
    assert await attacked.ask(org="evil") == 403
    await attacked.limiter.block({"org": "worse"})
    assert await attacked.ask(org="worse") == 403


@pytest.mark.parametrize("key", [CONTROLS, AUDIT, WORKERS, f"{WORKERS}:settings"])
@pytest.mark.parametrize("kind", ["string", "list", "set", "hash", "zset", "stream"])
async def test_a_value_of_another_type_is_survived(
    attacked: Surfaces, key: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a hash, a stream or a sorted set is expected, anything may lie: what holds goes on, and operators can change limits."""
    await attacked.limiter.block({"org": "evil"})
    put(attacked.redis, key, kind)
    for _ in range(3):
        await attacked.poll()
    assert [await attacked.ask() for _ in range(4)] == [200, 200, 200, 429]
    if key != CONTROLS or kind != "hash":
        assert await attacked.ask(org="evil") == 403
    assert await attacked.bad_pages() == {}
    changed = await attacked.client.put("/internal/blocks", json={"key": {"org": "worse"}}, headers=OPERATOR)
    assert (changed.status_code, await attacked.ask(org="worse")) == (200, 403)
    assert await attacked.bad_pages() == {}


@pytest.mark.parametrize(
    "entry",
    [
        b"[]",
        b"7",
        b"null",
        b'{"at": "x", "action": 1, "entry": 2, "values": {}}',
        b'{"at": 1e308, "action": "set", "entry": "x", "values": {}}',
        b'{"at": 1, "action": "set", "entry": "x", "values": {"until": "never", "why": [1], "by": {"a": 1}}}',
        b'{"at": 1, "action": "set", "entry": "x", "values": {"key": 7, "plan": [1], "rate": [1, 2, 3]}}',
        b'{"at": 1, "action": "set", "entry": "!switch:x", "values": {"mode": {}, "policy": []}}',
        b'{"at": 1, "action": "set", "entry": "a:x", "values": {"policy": "a", "rate": [-1, "x"], "key": {"a": 1}}}',
        b'{"at": 1, "action": "set", "entry": "a:x", "values": {"policy": "a", "rate": [1e999, 5], "key": []}}',
        b'{"at": 1, "action": "reset", "entry": "x", "values": {"policy": [], "caller": {}}}',
        b"[" * 100_000,
    ],
)
async def test_a_forged_audit_entry_breaks_no_page(
    attacked: Surfaces, entry: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The overview shows the changes that can be read; the log names the entry once, however often the page is loaded."""
    await attacked.limiter.block({"org": "evil"}, why="the real one")
    attacked.redis.xadd(AUDIT, {"v": entry})
    for _ in range(3):
        page = (await attacked.client.get("/ratelimit/", headers=OPERATOR)).text
        assert "block org=evil" in page
    assert await attacked.bad_pages() == {}
    assert len(lines_about(caplog.records, AUDIT)) <= 1


async def test_an_old_audit_entry_that_is_sent_again_changes_nothing(attacked: Surfaces, clock: ManualClock) -> None:
    """The trail tells what was done, and does nothing: who appends an old change to it once more makes no change."""
    await attacked.limiter.allowed.set({"org": "acme"}, until=in_seconds(clock, 60), why="load test")
    ((_, old),) = attacked.redis.xrange(AUDIT)
    await attacked.limiter.allowed.delete({"org": "acme"})
    attacked.redis.xadd(AUDIT, old)
    await attacked.poll()
    assert [await attacked.ask() for _ in range(4)] == [200, 200, 200, 429]


async def test_an_old_permission_that_is_written_again_has_ended(attacked: Surfaces, clock: ManualClock) -> None:
    """Who kept the entry that once allowed a caller, and writes it again after its end, allows nobody."""
    await attacked.limiter.allowed.set({"org": "acme"}, until=in_seconds(clock, 60))
    await attacked.limiter.fleet.pause(until=in_seconds(clock, 60))
    old: dict[bytes, bytes] = attacked.redis.hgetall(CONTROLS)
    clock.advance(seconds=61)
    attacked.redis.hset(CONTROLS, mapping={**old, b"#version": b"77"})
    await attacked.poll()
    assert [await attacked.ask() for _ in range(4)] == [200, 200, 200, 429]


async def test_messages_that_are_published_reach_nobody(attacked: Surfaces) -> None:
    """No worker listens to a channel, so nothing that is published there can stop or change one."""
    for channel in (CONTROLS, AUDIT, "__keyspace@0__:rl", "rl"):
        assert attacked.redis.publish(channel, b"\xc1garbage") == 0
    assert attacked.redis.pubsub_numpat() == 0
