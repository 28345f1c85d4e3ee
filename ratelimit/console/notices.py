"""Notices: what a change has done, and the command that does the same, shown once on the page that follows."""

import base64
import json
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ratelimit.console.security import set_cookie

DONE_COOKIE: Final = "ratelimit_done"
"""The cookie that carries a notice from a change to the next page."""

_SECONDS: Final = 60
_MAX_TEXT: Final = 500
_MAX_COOKIE: Final = 3500
"""Characters of a cookie that every browser keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What was done, and the command line that does the same."""

    text: str
    command: str


def redirect(request: Request, location: str, notice: Notice) -> Response:
    """Return the answer to a change: the browser loads `location`, which shows the notice."""
    response = RedirectResponse(location, 303)
    encoded = _encoded(notice.text, notice.command)
    if len(encoded) > _MAX_COOKIE:  # A part of a command is none.
        encoded = _encoded(notice.text[:_MAX_TEXT], "")
    set_cookie(response, request, DONE_COOKIE, encoded, seconds=_SECONDS)
    return response


def _encoded(text: str, command: str) -> str:
    value = json.dumps([text, command], ensure_ascii=False)
    return base64.urlsafe_b64encode(value.encode("utf-8", "replace")).decode()


def notice_of(request: Request) -> Notice | None:
    """Return the notice that the request brings, or `None`."""
    found = request.cookies.get(DONE_COOKIE, "")
    try:
        text, command = json.loads(base64.urlsafe_b64decode(found)) if 0 < len(found) <= _MAX_COOKIE else ("", "")
    except (ValueError, TypeError, RecursionError):
        return None
    return Notice(text=str(text), command=str(command)) if text else None
