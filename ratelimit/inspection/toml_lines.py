"""Lines of a TOML file: where the value of a field's path begins."""

import tomllib
from collections.abc import Sequence
from typing import Any

Path = Sequence[str | int]


class TomlLines:
    """Finds the line on which the value of a path begins, by parsing beginnings of the text, and halving them.

    So it knows all of TOML's grammar without one of its own. The text is parsed some ten times for each path.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._parsed: dict[int, dict[str, Any] | None] = {}

    def line_of(self, path: Path) -> int | None:
        """Return the line on which the value of a path begins, or of the nearest table around it; `None` for neither."""
        for length in range(len(path), 0, -1):
            line = self._first_line(path[:length])
            if line is not None:
                return line
        return None

    def _first_line(self, path: Path) -> int | None:
        """Return the first line after the longest beginning that does not have the path."""
        without, with_it = 0, len(self._lines)
        if not self._has(with_it, path):
            return None
        while (middle := self._readable_between(without, with_it)) is not None:
            if self._has(middle, path):
                with_it = middle
            else:
                without = middle
        return next((n for n in range(without + 1, with_it + 1) if self._is_code(n)), with_it)

    def _readable_between(self, low: int, high: int) -> int | None:
        """Return a beginning between two others that can be parsed, near to their middle; `None`: there is none."""
        middle = (low + high) // 2
        places = [*range(middle, high), *range(middle - 1, low, -1)]
        return next((n for n in places if n > low and self._beginning(n) is not None), None)

    def _has(self, number: int, path: Path) -> bool:
        value: Any = self._beginning(number)
        for part in path:
            if isinstance(value, list):
                if not (isinstance(part, int) and part < len(value)):
                    return False
            elif not (isinstance(value, dict) and part in value):
                return False
            value = value[part]
        return True

    def _beginning(self, number: int) -> dict[str, Any] | None:
        """Return what the first lines mean, or `None` in the middle of a value."""
        if number not in self._parsed:
            try:
                self._parsed[number] = tomllib.loads("\n".join(self._lines[:number]))
            except (tomllib.TOMLDecodeError, RecursionError):
                self._parsed[number] = None
        return self._parsed[number]

    def _is_code(self, number: int) -> bool:
        line = self._lines[number - 1].strip()
        return bool(line) and not line.startswith("#")
