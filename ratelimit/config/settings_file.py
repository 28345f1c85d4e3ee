"""A settings file: where settings were read from, and whether it has changed since."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

S = TypeVar("S")


class SettingsFile(Generic[S]):
    """Knows the file of some settings; `load` reads it (again), and is asked only where the file has changed.

    `overrides` are the fields that win over the file's.
    """

    def __init__(self, path: Path, overrides: Mapping[str, Any], load: Callable[..., S]) -> None:
        self._path, self._overrides, self._load = path, overrides, load
        self._seen = self._signature()

    def changed(self) -> S | None:
        """Return the settings that the file has now, or `None` where it is as it was; raises what loading raises.

        A change that cannot be loaded is reported once, and again after the next change.
        """
        now = self._signature()
        if now is None or now == self._seen:  # An editor may just replace it.
            return None
        self._seen = now
        return self._load(self._path, **self._overrides)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SettingsFile) and (self._path, self._overrides) == (other._path, other._overrides)

    def __hash__(self) -> int:
        return hash(self._path)

    def _signature(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
