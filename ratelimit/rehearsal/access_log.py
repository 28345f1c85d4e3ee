"""Access logs: files, plain or compressed, read in the order of time, with everything counted that could not be used."""

import gzip
import heapq
import io
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from ratelimit.errors import ConfigurationError
from ratelimit.rehearsal.callers import shown
from ratelimit.rehearsal.log_formats import Parse, detect, parser_of
from ratelimit.rehearsal.log_records import READ, LogRecord, RecordReader

STDIN: Final = "-"
REORDER_S: Final = 60.0
"""Seconds of the log that are held back, so that lines out of order find their place."""

_MAX_HELD: Final = 200_000
"""Lines that are held back at most: this bounds the memory."""

_new: Final = tuple.__new__
"""Makes a named tuple without calling its constructor, which takes longer."""

_BACKWARD_US: Final = 3_600_000_000
"""A step back by more than an hour is a clock that was set; less is lines out of order."""

_FORWARD_US: Final = 86_400_000_000
"""A step ahead by more than a day is one too; less is a quiet night."""

_MAX_UNREADABLE: Final = 0.01
"""The share of lines that may be unreadable: beyond it, the numbers mean nothing."""

_LOOK_US: Final = 1_000_000
"""How often (in the log's time) it is looked for requests that need not wait longer."""

_BEGIN, _STAMP = (LogRecord._fields.index(name) for name in ("at", "stamp"))
_NEVER: Final = 2**63
_SAMPLE: Final = 200
_SHOWN: Final = 5
_PROGRESS_LINES: Final = 5000

CANONICAL: Final = {
    "time": "time",
    "method": "request_method",
    "path": "request_uri",
    "status": "status",
    "duration": "request_time",
}
"""The fields that may be named for a log that calls them otherwise."""


@dataclass(slots=True)
class LogCounts:
    """What was read: lines, those that could not be used, and what was strange about the log's clock.

    `unreadable_lines` are the first few, `untimed` those among them that are requests without a time. `late` requests began more
    than `REORDER_S` before others whose lines came first, and are taken for as old as those. `jumps` are leaps of the clock: an hour
    back, or a day ahead. `broken` files end too early. `whole_seconds` says that stamps have no part of a second.
    """

    lines: int = 0
    unreadable: int = 0
    unreadable_lines: list[str] = field(default_factory=list)
    late: int = 0
    jumps: int = 0
    untimed: int = 0
    broken: list[str] = field(default_factory=list)
    whole_seconds: bool = False
    first: int = 0
    last: int = 0

    @property
    def is_unreadable(self) -> bool:
        """Whether too many lines could not be read for the numbers to mean anything."""
        return self.unreadable > _MAX_UNREADABLE * max(1, self.lines)


class AccessLog:
    """The requests of some log files, in the order in which they began.

    `paths` are files (plain or gzip) or `-`. `format_name` is that of `parser_of`, or `auto`. `aliases` name the fields of time,
    method, path, status and duration where the log calls them otherwise. Requests of one whole second are spread
    evenly over it, or with `at_once` all begin at it. `caller_fields` are those that are read beside them, of a format with
    variables. Requests before `since`, or from `until` on (epoch µs), are left out. `on_progress` gets the share of the bytes that
    was read. A file that cannot be read, or whose format is not known, raises `ConfigurationError`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        format_name: str = "auto",
        aliases: Mapping[str, str] | None = None,
        at_once: bool = False,
        reorder: float = REORDER_S,
        caller_fields: Iterable[str] = (),
        since: int | None = None,
        until: int | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        for name in aliases or {}:
            if name not in CANONICAL:
                raise ConfigurationError(f"--field: {name!r} is not one of {', '.join(CANONICAL)} [RL851]")
        self._paths, self._format, self._at_once = list(paths), format_name, at_once
        self._aliases = {CANONICAL[name]: path for name, path in (aliases or {}).items()}
        self._reader = RecordReader({"time": "time"} if "time" in self._aliases else None)
        self._reorder_us, self._on_progress = round(reorder * 1e6), on_progress
        self._sizes = {path: 0 if path == STDIN else _size(path) for path in paths}
        self._wanted = READ | set(caller_fields) if caller_fields else None
        self._since, self._until = since or 0, until
        self._done = 0
        self.counts = LogCounts()

    def records(self) -> Iterator[LogRecord]:
        """Yield all requests, in the order in which they began."""
        stamped = (self._in_order(self._read(path), _STAMP, count=True) for path in self._paths)
        streams = [self._in_order(self._spread(each), _BEGIN) for each in stamped]
        merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=_begin)
        for record in merged:
            if record.at < self._since or (self._until is not None and record.at >= self._until):
                continue
            self.counts.first = self.counts.first or record.at
            self.counts.last = max(self.counts.last, record.at)
            yield record

    def _read(self, path: str) -> Iterator[LogRecord]:
        counts, reader, aliases = self.counts, self._reader, self._aliases
        with _opened(path) as (lines, position):
            text = self._whole_lines(lines, path)
            head = list(islice(text, _SAMPLE))
            parse = self._parser(head) if head else None
            for number, line in enumerate(chain(head, text)):
                if not number % _PROGRESS_LINES:
                    self._report(position())
                fields = None if parse is None else parse(line)
                if fields is not None and aliases:
                    fields = {**fields, **{name: fields[own] for name, own in aliases.items() if own in fields}}
                record = None if fields is None else reader.read(fields)
                if record is not None:
                    counts.lines += 1
                    yield record
                elif line.strip():
                    counts.lines += 1
                    self._note_unreadable(line)
            self._done += self._sizes[path]
            self._report(0)

    def _note_unreadable(self, line: str) -> None:
        counts = self.counts
        counts.unreadable += 1
        counts.untimed = self._reader.untimed
        if len(counts.unreadable_lines) < _SHOWN:
            counts.unreadable_lines.append(shown(line.rstrip("\r\n")[:200]))

    def _whole_lines(self, lines: Iterator[str], path: str) -> Iterator[str]:
        """Yield the lines without a byte order mark; a file that ends too early is named, and what was read is used."""
        try:
            for number, line in enumerate(lines):
                yield line if number else line.removeprefix("\ufeff")
        except (EOFError, OSError, zlib.error):
            self.counts.broken.append(path)

    def _parser(self, head: Sequence[str]) -> Parse:
        if self._format != "auto":
            return parser_of(self._format, self._wanted)
        return parser_of("json") if self._aliases else detect(head, self._wanted)

    def _spread(self, records: Iterator[LogRecord]) -> Iterator[LogRecord]:
        """Give requests of one whole second instants of their own, in the order of their lines."""
        second: list[LogRecord] = []
        for record in records:
            if second and (not record.is_whole or record.stamp != second[0].stamp):
                yield from self._placed(second)
                second = []
            if record.is_whole:
                self.counts.whole_seconds = True
                second.append(record)
            else:
                yield record
        yield from self._placed(second)

    def _placed(self, second: list[LogRecord]) -> Iterator[LogRecord]:
        if self._at_once or len(second) < 2:
            yield from second
            return
        for number, (at, ends, *rest) in enumerate(second):
            later = number * 1_000_000 // len(second)
            yield _new(LogRecord, (at + later, ends + later, *rest))

    def _in_order(self, records: Iterator[Any], by: int, *, count: bool = False) -> Iterator[LogRecord]:
        """Hold requests back for some time of the log, so that they come in the order of their fields number `by`.

        Most come in order, and wait in a queue; the others wait beside it. With `count`, leaps of the clock are counted.
        """
        queue, beside = deque[Any](), list[tuple[int, int, LogRecord]]()
        newest = given = last = 0
        looked_at = 0
        for number, each in enumerate(records):
            record, at, stamp = each, each[by], each[_STAMP]
            if newest and not newest - _BACKWARD_US <= stamp <= newest + _FORWARD_US:  # The clock was set.
                self.counts.jumps += count
                yield from _all(queue, beside, by)
                newest = given = last = looked_at = 0
            newest = max(newest, stamp)
            if at < given:
                self.counts.late += 1
                record, at = _moved(record, given - at), given
            if at < last:
                heapq.heappush(beside, (at, number, record))
            else:
                queue.append(record)
                last = at
            if newest - looked_at < _LOOK_US and len(queue) + len(beside) <= _MAX_HELD:
                continue
            looked_at, horizon = newest, newest - self._reorder_us
            while _first(queue, beside, by) <= horizon or len(queue) + len(beside) > _MAX_HELD:
                first = _next(queue, beside, by)
                given = first[by]
                yield first
        yield from _all(queue, beside, by)

    def _report(self, position: int) -> None:
        if self._on_progress is not None:
            total = sum(self._sizes.values())
            self._on_progress(min(1.0, (self._done + position) / total) if total else 0.0)


def _moved(record: LogRecord, later: int) -> LogRecord:
    return record._replace(at=record.at + later, ends=record.ends + later, stamp=record.stamp + later)


def _first(queue: "deque[Any]", beside: list[Any], by: int) -> int:
    """Return the smallest of those that wait."""
    own: int = queue[0][by] if queue else _NEVER
    return min(own, beside[0][0]) if beside else own


def _next(queue: "deque[Any]", beside: list[Any], by: int) -> Any:
    if beside and (not queue or beside[0][0] < queue[0][by]):
        return heapq.heappop(beside)[2]
    return queue.popleft()


def _all(queue: "deque[Any]", beside: list[Any], by: int) -> Iterator[LogRecord]:
    while queue or beside:
        yield _next(queue, beside, by)


def _begin(record: LogRecord) -> int:
    return record.at


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror} [RL853]") from None


def _buffered(file: BinaryIO) -> io.BufferedReader:
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[arg-type]


class _opened:  # noqa: N801 - used as a function
    """Opens a log for reading as text: yields its lines, and what tells how many bytes of the file were read."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._raw: IO[bytes] | None = None

    def __enter__(self) -> tuple[Iterator[str], Callable[[], int]]:
        try:
            raw = _buffered(sys.stdin.buffer) if self._path == STDIN else Path(self._path).open("rb")
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror} [RL853]") from None
        if self._path != STDIN:
            self._raw = raw
        binary: IO[bytes] = raw
        if raw.peek(2)[:2] == b"\x1f\x8b":
            binary = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment]
        text = io.TextIOWrapper(binary, "utf-8", errors="replace", newline="\n")
        # `tell` of a text file is not to be had while it is iterated over.
        return iter(text), (lambda: 0) if self._path == STDIN else raw.tell

    def __exit__(self, *exception: object) -> None:
        if self._raw is not None:
            self._raw.close()
