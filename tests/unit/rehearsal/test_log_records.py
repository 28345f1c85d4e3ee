"""Records: instants in all the ways in which logs write them, requests and durations."""

import pytest

from ratelimit.rehearsal.log_records import RecordReader, instant_of


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1795000000", 1795000000_000000),
        ("1795000000.5", 1795000000_500000),
        ("1795000000123", 1795000000_123000),
        ("1795000000123456", 1795000000_123456),
        ("1795000000123456789", 1795000000_123456),
        ("1.795e9", 1795000000_000000),
        ("18/Nov/2026:11:06:40 +0000", 1795000000_000000),
        ("18/Nov/2026:12:06:40 +0100", 1795000000_000000),
        ("18/Nov/2026:11:06:40.25 +0000", 1795000000_250000),
        ("2026-11-18T11:06:40Z", 1795000000_000000),
        ("2026-11-18 11:06:40,250", 1795000000_250000),
        ("2026-11-18T12:06:40.123456789+01:00", 1795000000_123456),
        ("yesterday", None),
        ("31/Feb/2026:11:06:40 +0000", None),
        ("9" * 400, None),
        ("1e400", None),
        ("2026-02-31T00:00:00", None),
        ("18/Foo/2026:11:06:40 +0000", None),
    ],
)
def test_instants_are_read(text: str, us: int | None) -> None:
    """Seconds and their parts, CLF and ISO 8601; a time without a zone is UTC."""
    assert instant_of(text) == us


@pytest.mark.parametrize(
    ("fields", "request_"),
    [
        ({"request": "GET /a?b HTTP/1.1"}, ("GET", "/a")),
        ({"request": "GET http://x:80/a/b?c HTTP/1.1"}, ("GET", "/a/b")),
        ({"request_method": "PUT", "uri": "/a"}, ("PUT", "/a")),
        ({"path": "/a"}, ("GET", "/a")),
        ({"path": "/v1/%62%20c?q=%2F"}, ("GET", "/v1/b c")),
        ({"request": "M-SEARCH * HTTP/1.1"}, ("M-SEARCH", "*")),
        ({"request": "GET"}, None),
        ({"request": "\\x16\\x03 / HTTP/1.1"}, None),
        ({"method": "GET"}, None),
        ({"request": "GET http://[x/ HTTP/1.1"}, None),
    ],
)
def test_requests_are_read(fields: dict[str, str], request_: tuple[str, str] | None) -> None:
    """A method and a path without its query; noise is no request."""
    found = RecordReader().read({"time": "1795000000", **fields})
    assert (None if found is None else (found.method, found.path)) == request_


def test_durations_set_the_beginning_back() -> None:
    """Unless the log says when the request began; a whole second is known as one, and what has no time is counted."""
    reader = RecordReader()
    ended = reader.read({"time": "1795000000", "path": "/", "request_time": "0.25", "status": "404"})
    assert ended is not None
    assert (ended.at, ended.ends, ended.status, ended.is_whole) == (1794999999_750000, 1795000000_000000, 404, True)
    began = reader.read({"start_time": "1795000000.5", "path": "/", "duration_ms": "250", "status": "?"})
    assert began is not None
    assert (began.at, began.ends, began.status, began.is_whole) == (1795000000_500000, 1795000000_750000, 0, False)
    for text in ("soon", "nan", "inf", "1e300", "-5"):
        odd = reader.read({"time": "1795000000", "path": "/", "duration": text})
        assert odd is not None
        assert odd.at == odd.ends
    assert reader.read({"path": "/"}) is None
    assert reader.read({"path": "/", "time": "soon"}) is None
    assert reader.untimed == 2


def test_each_second_of_a_minute_is_its_own() -> None:
    """Also where the minute is known, at a leap second, in another zone, and beside a text of the same length that is no time."""
    reader = RecordReader()
    texts = [
        f"18/Nov/2026:11:06:{second} {zone}"
        for zone in ("+0000", "+0100")
        for second in ("40", "59", "60", "00", "x1", "4²")
    ]
    texts += ["2026-11-18T11:06:40.123456", "2026-11-18T11:06:41.123456", "18/Nov/2026:11:06:40.25+00"]
    found = [reader.read({"time": text, "path": "/"}) for text in texts]
    assert [None if each is None else each.at for each in found] == [instant_of(text) for text in texts]
    assert found[0] is not None
    assert found[0].at + 19_000_000 == (found[1] or found[0]).at
