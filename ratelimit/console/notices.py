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
_MAX_TEXT: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What was done, and the command line that does the same."""

    text: str
    command: str


def redirect(request: Request, location: str, notice: Notice) -> Response:
    """Return the answer to a change: the browser loads `location`, which shows the notice."""
    response = RedirectResponse(location, 303)
    value = json.dumps([notice.text[:_MAX_TEXT], notice.command[:_MAX_TEXT]])
    encoded = base64.urlsafe_b64encode(value.encode()).decode()
    set_cookie(response, request, DONE_COOKIE, encoded, seconds=_SECONDS)
    return response


def notice_of(request: Request) -> Notice | None:
    """Return the notice that the request brings, or `None`."""
    found = request.cookies.get(DONE_COOKIE, "")
    try:
        text, command = json.loads(base64.urlsafe_b64decode(found)) if found else ("", "")
    except (ValueError, TypeError):
        return None
    return Notice(text=str(text)[:_MAX_TEXT], command=str(command)[:_MAX_TEXT]) if text else None
