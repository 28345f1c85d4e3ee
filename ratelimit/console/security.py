"""What protects the console: headers of every answer, and the checks of every change (OWASP: CSRF, clickjacking, XSS)."""

import hmac
import re
import secrets
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Send

CSRF_COOKIE: Final = "ratelimit_csrf"
"""The cookie whose value every form repeats."""

_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_WRONG_ORIGIN: Final = "This change was not sent by a page of the console. [RL222]"
_OUTDATED: Final = "This form is out of date: load the page again, and send it once more. [RL222]"


def protected(send: Send) -> Send:
    """Return a `send` that adds the headers which no answer of the console lacks."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return wrapped


def csrf_token(request: Request) -> str:
    """Return the token of this browser, or a new one."""
    found = request.cookies.get(CSRF_COOKIE, "")
    return found if _TOKEN.fullmatch(found) else secrets.token_hex(16)


def set_cookie(response: Response, request: Request, name: str, value: str, *, seconds: int | None = None) -> None:
    """Set a cookie for the pages below this one, which no script and no other site can use."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=f"{request.scope.get('root_path', '').rstrip('/')}/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def check_change(request: Request, token: str) -> None:
    """Raise `HTTPException` 403 unless a page of this origin has sent the form, with the token of this browser.

    `Sec-Fetch-Site` decides where a browser sends it (Fetch Metadata), else `Origin` (RFC 6454).
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    is_own = site == "same-origin" if site is not None else _is_own_origin(origin, request)
    if not is_own:
        raise HTTPException(403, _WRONG_ORIGIN)
    known = request.cookies.get(CSRF_COOKIE, "")
    if not _TOKEN.fullmatch(known) or not hmac.compare_digest(known.encode(), token.encode("utf-8", "replace")):
        raise HTTPException(403, _OUTDATED)


def _is_own_origin(origin: str | None, request: Request) -> bool:
    try:
        return origin is not None and urlsplit(origin).netloc == request.headers.get("host", "")
    except ValueError:
        return False
