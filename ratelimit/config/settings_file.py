"""A settings file: where settings were read from, and whether it has changed since."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

from ratelimit.errors import ConfigurationError

S = TypeVar("S")

Signature = tuple[int, ...]
"""What changes when a file is written: its time, its size, its place on the disk."""

_GONE: Final = 3
"""Looks in a row after which a file that is missing is reported."""


def signature_of(path: Path) -> Signature | None:
    """Return the signature of a file, or `None` where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class SettingsFile(Generic[S]):
    """Knows the file of some settings; `load` reads it (again), and is asked only where the file has changed.

    `overrides` are the fields that win over the file's, and `seen` the signature from before it was read.
    """

    def __init__(
        self, path: Path, overrides: Mapping[str, Any], load: Callable[..., S], seen: Signature | None
    ) -> None:
        self._path, self._overrides, self._load = path, overrides, load
        self._seen = self._last = seen
        self._missing = 0

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """Return the same file with more fields that win over its own."""
        return type(self)(self._path, {**self._overrides, **overrides}, self._load, self._seen)

    def changed(self) -> S | None:
        """Return the settings that the file has now, or `None` where it is as it was; raises what loading raises.

        A file is read when it has not changed between two looks: it may be in the middle of being written. A change that cannot
        be loaded is reported once, and again after the next change.
        """
        now, last = signature_of(self._path), self._last
        self._last = now
        self._missing = self._missing + 1 if now is None else 0
        if self._missing == _GONE:
            raise ConfigurationError(f"{self._path}: the file is gone [RL101]")
        if now is None or now == self._seen or now != last:
            return None
        self._seen = now
        if not self._path.read_text("utf-8", "replace").strip():
            raise ConfigurationError(f"{self._path}: the file is empty [RL101]")
        return self._load(self._path, **self._overrides)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SettingsFile) and (self._path, self._overrides) == (other._path, other._overrides)

    def __hash__(self) -> int:
        return hash(self._path)
