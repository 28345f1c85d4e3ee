"""How commands print: tables and texts for people, JSON for programs; errors with their exit code."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ratelimit._utils.texts import HIDDEN, visible

FINE: Final = 0
FINDINGS: Final = 1
USAGE: Final = 2
STORE_AWAY: Final = 3

Cell = str | int | float | None


class Terminal(Console):
    """Prints texts without a character that a terminal would obey: callers and other programs choose names and reasons."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does."""
        super().print(*map(_shown, objects), **options)


def _shown(each: Any) -> Any:
    if isinstance(each, Text) and HIDDEN.search(each.plain):
        return Text(visible(each.plain), style=each.style)
    return visible(each) if isinstance(each, str) else each


def console(*, stderr: bool = False) -> Console:
    """Return what prints to the terminal; rich follows NO_COLOR, and the width of the terminal."""
    return Terminal(stderr=stderr, highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """Print a value as JSON, indented by two."""
    text = json.dumps(value, indent=2, default=str, ensure_ascii=False)
    print(HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], text))  # noqa: T201 - the output of the program


def print_error(message: str) -> None:
    """Print why a command has ended, to stderr."""
    console(stderr=True).print(Text(f"ratelimit: {message}", style="bold red"))


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, numbers: Sequence[str] = ()) -> Table:
    """Return a table without lines; the columns of `numbers` are aligned to the right."""
    found = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in columns:
        found.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        found.add_row(*(Text(_cell(cell)) for cell in row))
    return found


def _cell(cell: Cell) -> str:
    """Return a cell, in which a line break does not look like another row."""
    return "" if cell is None else visible(str(cell)).replace("\n", "\\n")


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, none: str, numbers: Sequence[str] = ()
) -> None:
    """Print a table, or where it has no rows, the words for that."""
    console().print(table(columns, rows, numbers=numbers) if rows else Text(none, style="dim"))


def instant_text(instant: datetime | None) -> str:
    """Return an instant as tables show it, in UTC; `-` for none."""
    return "-" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def ending(entry: Any) -> dict[str, str | None]:
    """Return what every override, block and switch has, as JSON takes it."""
    return {"until": iso_text(entry.until), "why": entry.why, "by": entry.by}


def iso_text(instant: datetime | None) -> str | None:
    """Return an instant as JSON takes it, to the second."""
    return None if instant is None else instant.isoformat(timespec="seconds")
