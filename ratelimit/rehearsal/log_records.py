"""Records: what a rehearsal needs of one line: when the request began and ended, for what it was, and what was answered."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from ratelimit.rehearsal.log_formats import Fields

_LAST: Final = 250_000_000_000_000_000
"""Epoch µs beyond which a number is no instant."""

_MAX_DURATION_US: Final = 86_400_000_000
"""A longer duration is not one: its unit is another than the log's."""

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], 1
    )
}
_CLF: Final = re.compile(r"(\d\d)/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d)(?:\.(\d+))? ?([+-]\d{4})?")
_NUMBER: Final = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?")
_METHOD: Final = re.compile(r"[A-Z]+(?:-[A-Z]+)*")

TIMES: Final = ("start_time", "msec", "time_iso8601", "time_local", "time", "timestamp", "ts", "@timestamp", "asctime")
METHODS: Final = ("request_method", "method", "http_method", "verb")
PATHS: Final = ("request_uri", "uri", "path", "url", "request_path")
STATUSES: Final = ("status", "status_code", "response_code", "code")
DURATIONS: Final[tuple[tuple[str, float], ...]] = (
    ("request_time", 1e6),
    ("duration_ms", 1e3),
    ("duration_ns", 1e-3),
    ("duration", 1e6),
    ("response_time", 1e6),
)
"""Names of durations, and how many microseconds one unit is."""

_CLF_LENGTH: Final = 26
_MAX_CACHED: Final = 10_000

_PARTS: Final = ("request_processing_time", "target_processing_time", "response_processing_time")


READ: Final = frozenset(("request", *TIMES, *METHODS, *PATHS, *STATUSES, *(name for name, _ in DURATIONS), *_PARTS))
"""All fields that may be read of a line, apart from those that name its caller."""


_new: Final = tuple.__new__


class LogRecord(NamedTuple):
    """One request: `at` and `ends` in epoch µs, `stamp` as the log has it, `is_whole` where that has no part of a second.

    `status` is 0 where the log has none. `fields` are all of the line's.
    """

    at: int
    ends: int
    method: str
    path: str
    status: int
    is_whole: bool
    fields: Fields
    stamp: int = 0


class RecordReader:
    """Makes records of fields; `names` says which fields to read, where they are not those that logs usually have."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        own = names or {}
        self._times = (own["time"],) if "time" in own else TIMES
        self._seconds: dict[str, int] = {}
        self._minutes: dict[str, int] = {}
        self._requests: dict[str, tuple[str, str] | None] = {}
        self.untimed = 0
        """Requests without a time that can be read."""

    def read(self, fields: Fields) -> LogRecord | None:
        """Return the record of a line, or `None` where it has no time or no request."""
        request = self._request(fields)
        if request is None:
            return None
        method, path = request
        for name in self._times:
            if name in fields:
                break
        else:
            self.untimed += 1
            return None
        text = fields[name]
        at, is_whole = self._seconds.get(text), True
        if at is None:
            at, is_whole = self._instant(text)
        if at is None:
            self.untimed += 1
            return None
        status = fields.get("status") or next((fields[each] for each in STATUSES if each in fields), "")
        duration = _duration(fields)
        begins = at if name == "start_time" else at - duration
        answered = int(status) if status.isascii() and status.isdigit() else 0
        return _new(LogRecord, (begins, begins + duration, method, path, answered, is_whole, fields, at))

    def _request(self, fields: Fields) -> tuple[str, str] | None:
        """Return method and path; the requests of a log are read once each."""
        text = fields.get("request")
        if text is None:
            return _request(fields)
        try:
            return self._requests[text]
        except KeyError:
            if len(self._requests) > _MAX_CACHED:
                self._requests.clear()
            found = self._requests[text] = _request(fields)
            return found

    def _instant(self, text: str) -> tuple[int | None, bool]:
        """Return an instant in epoch µs, and whether it is a whole second; the seconds of a log are read once each."""
        found = self._second_of_a_minute(text) if len(text) == _CLF_LENGTH else instant_of(text)
        if found is None:
            return None, False
        is_whole = not _has_fraction(text) and found % 1_000_000 == 0
        if is_whole:
            if len(self._seconds) > _MAX_CACHED:
                self._seconds.clear()
            self._seconds[text] = found
        return found, is_whole

    def _second_of_a_minute(self, text: str) -> int | None:
        """Read `20/Nov/2026:06:00:01 +0100`, whose minute is read once; other texts of its length are read as they are."""
        minute, second = text[:18] + text[20:], text[18:20]
        base = self._minutes.get(minute)
        if base is not None and second.isascii() and second.isdigit():
            return base + min(59, int(second)) * 1_000_000
        found = instant_of(text)
        if found is not None and _CLF.fullmatch(text):
            if len(self._minutes) > _MAX_CACHED:
                self._minutes.clear()
            self._minutes[minute] = found - min(59, int(second)) * 1_000_000
        return found


def instant_of(text: str) -> int | None:
    """Return an instant in epoch µs of a CLF time, ISO 8601, or a number of seconds, ms, µs or ns since the epoch.

    A time without a zone is UTC.
    """
    try:
        return _instant_of(text)
    except (ValueError, OverflowError):  # No such day, or far away.
        return None


def _instant_of(text: str) -> int | None:
    if _NUMBER.fullmatch(text):
        found = _from_number(text)
        return found if found < _LAST else None
    if clf := _CLF.match(text):
        return _from_clf(clf)
    try:
        parsed = datetime.fromisoformat(_shortened(text.replace(",", ".")))
    except ValueError:
        return None
    parsed = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
    return (parsed - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _from_number(text: str) -> int:
    whole, _, fraction = text.partition(".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()):
        return round(min(float(text), 1e12) * 1e6)
    if len(whole) > 20:
        return _LAST
    # Digits tell the unit: seconds have ten until the year 2286.
    scale = 6 if len(whole) <= 11 else 3 if len(whole) <= 14 else 0 if len(whole) <= 17 else -3
    if scale < 0:
        return int(whole) // 1000
    return int(whole + (fraction + "0" * scale)[:scale])


def _from_clf(found: re.Match[str]) -> int | None:
    day, month, year, hour, minute, second, fraction, zone = found.groups()
    if month not in _MONTHS:
        return None
    moment = datetime(int(year), _MONTHS[month], int(day), int(hour), int(minute), min(59, int(second)), tzinfo=UTC)
    offset = 0 if zone is None else int(zone[0] + "1") * (int(zone[1:3]) * 3600 + int(zone[3:5]) * 60)
    micros = int((fraction or "0").ljust(6, "0")[:6])
    return (int(moment.timestamp()) - offset) * 1_000_000 + micros


def _shortened(text: str) -> str:
    """Return ISO 8601 with at most six digits of a second: some logs have nine."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text)


def _has_fraction(text: str) -> bool:
    return bool(re.search(r"\d[.,]\d", text))


def _request(fields: Fields) -> tuple[str, str] | None:
    """Return method and path, from `GET /x HTTP/1.1` or from fields of their own."""
    parts = fields.get("request", "").split(" ")
    if len(parts) > 1 and _METHOD.fullmatch(parts[0].upper()):
        method, target = parts[0], parts[1]
    else:
        method = next((fields[each] for each in METHODS if each in fields), "GET")
        target = next((fields[each] for each in PATHS if each in fields), "")
    method = method.upper()
    if not target or not _METHOD.fullmatch(method):
        return None
    path = target.partition("?")[0] if target.startswith("/") else _path_of(target)
    if path is None:
        return None
    return method, unquote(path) if "%" in path else path


def _path_of(target: str) -> str | None:
    try:
        return urlsplit(target).path or "/"
    except ValueError:
        return None


def _duration(fields: Fields) -> int:
    """Return how long the request took, in µs; 0 where the log does not say."""
    for name, unit in DURATIONS:
        if name in fields:
            return _micros(fields[name], unit)
    if _PARTS[0] not in fields:
        return 0
    return sum(_micros(fields[name], 1e6) for name in _PARTS if name in fields)


def _micros(text: str, unit: float) -> int:
    try:
        found = round(float(text) * unit)
    except (ValueError, OverflowError):
        return 0
    return found if 0 < found <= _MAX_DURATION_US else 0
