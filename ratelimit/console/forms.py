"""Forms of the console: their fields, and the times and callers that they name."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ratelimit.clock import Clock
from ratelimit.errors import ConfigurationError

MAX_BYTES: Final = 65_536
"""Bytes of a form that are read."""

DURATIONS: Final[Mapping[str, timedelta]] = {
    "1 hour": timedelta(hours=1),
    "4 hours": timedelta(hours=4),
    "1 day": timedelta(days=1),
    "7 days": timedelta(days=7),
    "30 days": timedelta(days=30),
}
"""How long a change may hold, by what the forms call it; beside these a day, and no end."""

_MAX_FIELDS: Final = 200
NO_END: Final = "no end"
THE_DAY: Final = "the day"
_KEY: Final = "key."
_NUMBER: Final = re.compile(r"\d{1,18}")


class Form:
    """The fields of a form; a field that is wrong raises `ConfigurationError`, which names it."""

    def __init__(self, fields: Mapping[str, str], clock: Clock) -> None:
        self._fields, self._clock = fields, clock

    @classmethod
    async def of(cls, request: Request, clock: Clock) -> "Form":
        """Read the form of a request; more than 64 kB are answered with 413."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise HTTPException(413)
        try:
            pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
        except ValueError:
            raise HTTPException(413) from None
        return cls({name: value.strip() for name, value in pairs}, clock)

    def text(self, name: str) -> str | None:
        """Return a field, `None` where it is empty."""
        return self._fields.get(name) or None

    def needed(self, name: str) -> str:
        """Return a field that must not be empty."""
        found = self.text(name)
        if found is None:
            raise ConfigurationError(f"{name}: say it [RL221]")
        return found

    def key(self) -> dict[str, str]:
        """Return whom the form names: its fields `key.org`, `key.token_hash` and so on."""
        return {name[len(_KEY) :]: value for name, value in self._fields.items() if name.startswith(_KEY) and value}

    def rate(self) -> str | int:
        """Return the rate: `600/minute`, a number, or `unlimited`."""
        found = self.needed("rate")
        return int(found) if _NUMBER.fullmatch(found) else found

    def until(self) -> datetime | None:
        """Return when the change ends: after so long, after a day (in UTC), or never (`None`)."""
        chosen = self.text("for") or NO_END
        if chosen == NO_END:
            return None
        if chosen == THE_DAY:
            return self._end_of_day(self.needed("day"))
        if chosen not in DURATIONS:
            raise ConfigurationError(f"for: {chosen!r:.50} is not one of {', '.join(DURATIONS)} [RL221]")
        now = datetime.fromtimestamp(self._clock() // 1_000_000, UTC)
        return now + DURATIONS[chosen]

    def _end_of_day(self, day: str) -> datetime:
        try:
            return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
        except (ValueError, OverflowError):
            raise ConfigurationError(f"day: {day!r:.50} is not a day, such as 2026-12-24 [RL221]") from None
