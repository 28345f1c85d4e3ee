"""The three-layer example with the console on it, for operators with a password, and a page for each caller."""

import base64
import os
import secrets
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.requests import Request

from examples.server.three_layers import app
from ratelimit.console import caller_page, console

PASSWORD = os.environ.get("CONSOLE_PASSWORD") or secrets.token_hex()
_ASK = {"www-authenticate": 'Basic realm="limits", charset="UTF-8"'}


def operator(request: Request) -> str:
    """Return the operator's name. A real app asks its own sign-in."""
    _, _, sent = request.headers.get("authorization", "").partition("Basic ")
    with suppress(ValueError):
        name, _, password = base64.b64decode(sent).decode().partition(":")
        if name and secrets.compare_digest(password.encode(), PASSWORD.encode()):
            return name
    raise HTTPException(401, "Name and password, please.", _ASK)


app.mount("/console", console(app.state.limiter, authorize=operator, authorize_changes=operator))
app.mount("/limits", caller_page())
