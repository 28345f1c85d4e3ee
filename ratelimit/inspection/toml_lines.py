"""Lines of a TOML file: where the value of a field's path begins."""

import tomllib
from collections.abc import Sequence
from typing import Any

Path = Sequence[str | int]


class TomlLines:
    """Finds the line on which the value of a path begins, by parsing longer and longer beginnings of the text.

    So it knows all of TOML's grammar without one of its own. For a file of some hundred lines that takes some 100 ms.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._parsed: list[tuple[int, dict[str, Any]]] = []
        for number in range(1, len(self._lines) + 1):
            try:
                self._parsed.append((number, tomllib.loads("\n".join(self._lines[:number]))))
            except (tomllib.TOMLDecodeError, RecursionError):
                continue  # In the middle of a value.

    def line_of(self, path: Path) -> int | None:
        """Return the line on which the value of a path begins, or of the nearest table around it; `None` for neither."""
        for length in range(len(path), 0, -1):
            line = self._first_line(path[:length])
            if line is not None:
                return line
        return None

    def _first_line(self, path: Path) -> int | None:
        before = 0
        for number, parsed in self._parsed:
            if _has(parsed, path):
                return next((n for n in range(before + 1, number + 1) if self._is_code(n)), number)
            before = number
        return None

    def _is_code(self, number: int) -> bool:
        line = self._lines[number - 1].strip()
        return bool(line) and not line.startswith("#")


def _has(value: Any, path: Path) -> bool:
    for part in path:
        if isinstance(value, list):
            if not (isinstance(part, int) and part < len(value)):
                return False
        elif not (isinstance(value, dict) and part in value):
            return False
        value = value[part]
    return True
