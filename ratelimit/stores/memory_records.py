"""What the embedded store keeps beside counters: small shared maps, counts of spans of time, logs and rankings."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Final

from ratelimit.clock import Clock
from ratelimit.stores.base import Store
from ratelimit.stores.messages import SharedMap

_EMPTY_MAP: Final = SharedMap(0, {})


class MemoryRecords(Store):
    """Keeps the shared maps, counts, logs and rankings of a store in this process's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._maps: dict[str, SharedMap] = {}
        self._counts: dict[str, tuple[int, Mapping[str, int]]] = {}
        self._logs: dict[str, deque[tuple[str, bytes]]] = {}
        self._appended = clock()  # Ids of a log go on after a restart.

    async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
        """Return the shared map `name`, unless its version is still `seen`."""
        found = self._maps.get(name, _EMPTY_MAP)
        return None if found.version == seen else found

    async def put_entry(self, name: str, entry: str, value: bytes | None) -> None:
        """Write or remove one entry."""
        with self._lock:
            version, values = self._maps.get(name, _EMPTY_MAP)
            changed = {**values, entry: value}
            self._maps[name] = SharedMap(version + 1, {key: kept for key, kept in changed.items() if kept is not None})

    async def add_counts(self, spans: Sequence[tuple[str, int]], counts: Mapping[str, int]) -> None:
        """Add these numbers to the counts of each span of time."""
        now = self._clock() // 1_000_000
        with self._lock:
            self._counts = {name: kept for name, kept in self._counts.items() if kept[0] > now}
            for span, seconds in spans:
                _, known = self._counts.get(span, (0, {}))
                added = {name: known.get(name, 0) + number for name, number in counts.items()}
                self._counts[span] = now + seconds, {**known, **added}

    async def read_counts(self, spans: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the counts of these spans of time."""
        now = self._clock() // 1_000_000
        found = [self._counts.get(span, (0, {})) for span in spans]
        return [counts if until > now else {} for until, counts in found]

    async def append_log(self, name: str, values: Sequence[bytes], *, keep: int, seconds: int) -> None:
        """Append to a log, which lives as long as the process."""
        del seconds
        with self._lock:
            log = self._logs.setdefault(name, deque())
            for value in values:
                self._appended += 1
                log.append((f"{self._appended:020d}", value))
            while len(log) > keep:
                log.popleft()

    async def read_log(self, name: str, *, last: int = 100, after: str | None = None) -> Sequence[tuple[str, bytes]]:
        """Return the last values of a log, or the first after an id."""
        log = list(self._logs.get(name, ()))
        return log[-last:] if after is None else [each for each in log if each[0] > after][:last]

    async def add_ranks(
        self, ranks: Mapping[str, Mapping[str, int]], *, keep: int, seconds: int, replace: bool = False
    ) -> None:
        """Add these numbers to rankings, or set them."""
        await self.add_counts([], {})
        until = self._clock() // 1_000_000 + seconds
        with self._lock:
            for name, changes in ranks.items():
                _, known = self._counts.get(name, (0, {}))
                changed = Counter({**known, **changes} if replace else known)
                if not replace:
                    changed.update(changes)
                self._counts[name] = until, dict(changed.most_common(keep))

    async def read_ranks(self, names: Sequence[str], *, member: str | None = None) -> Sequence[Mapping[str, int]]:
        """Return these rankings, or one member of each."""
        found = await self.read_counts(names)
        if member is None:
            return found
        return [{member: each[member]} if member in each else {} for each in found]
