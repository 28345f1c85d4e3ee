"""Answers a refused request: by a problem, or by the app's own answer with the headers of the refusal."""

import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ratelimit._utils.sampling import SampledLog
from ratelimit.asgi.headers import Headers, rejection_headers, shown_in_headers
from ratelimit.asgi.problem_details import render_problem, shown_in_body
from ratelimit.asgi.request_id import request_id_header, with_instance
from ratelimit.config.response_style import ResponseStyle
from ratelimit.enforcement.decision import Decision
from ratelimit.errors import ConfigurationError

logger = logging.getLogger("ratelimit")

OnRefused = Callable[[Request, Decision], Response | Awaitable[Response | None] | None]
"""Answers a refused HTTP request in the app's own way, sync or async; `None` leaves it to the usual problem."""

EXCEPTION_HANDLER: Final = "exception_handler"
"""Says that the app's own handler for the status of a refusal, or for `HTTPException`, answers it."""

_failed: Final = SampledLog(logger, 10.0)
_DENIAL_RESPONSE: Final = "websocket.http.response"
_TRY_AGAIN_LATER: Final = 1013


def check_on_refused(value: Any, app: Any) -> "OnRefused | None":
    """Return the function that answers refusals, or raise `ConfigurationError`; `app` is what the limiter surrounds."""
    if value == EXCEPTION_HANDLER:
        return partial(_by_exception_handler, app)
    if value is not None and not callable(value):
        raise ConfigurationError(
            f"RateLimitMiddleware: on_refused must be a function of the request and the decision, or "
            f"{EXCEPTION_HANDLER!r}, not {value!r:.100} [RL206]"
        )
    return value  # type: ignore[no-any-return]


async def send_refusal(
    decision: Decision,
    style: ResponseStyle,
    on_refused: OnRefused | None,
    connection: tuple[Scope, Receive, Send],
    request_id: str,
) -> None:
    """Answer a refused request or WebSocket handshake; `on_refused` answers HTTP requests, as long as it does not fail.

    A problem has the request id as its `instance`; an answer without a place for it, in `X-Request-ID`.
    """
    scope, receive, send = connection
    if on_refused is not None and scope["type"] == "http":
        response = await _own_answer(on_refused, Request(scope, receive), decision)
        if response is not None:
            headers = [*rejection_headers(decision, style), request_id_header(request_id)]
            await response(scope, receive, _adding(headers, send))
            return
    await _send_problem(decision, style, connection, request_id)


async def _own_answer(on_refused: OnRefused, request: Request, decision: Decision) -> Response | None:
    try:
        found = on_refused(request, decision)
        response = await found if inspect.isawaitable(found) else found
    except Exception:  # noqa: BLE001 - logged
        _failed.error("on_refused failed; the refusal is answered with a problem [RL505]", exc_info=True)
        return None
    if response is not None and not isinstance(response, Response):
        logger.error("on_refused must return a Response or None, not %s [RL505]", type(response).__name__)
        return None
    return response


def _adding(headers: Headers, send: Send) -> Send:
    """Return a `send` that adds those of the headers that a response does not have itself."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = list(message.get("headers", ()))
            own = {_family(name.lower()) for name, _ in present}
            added = [each for each in headers if _family(each[0]) not in own]
            message = {**message, "headers": [*present, *added]}
        await send(message)

    return wrapped


def _family(name: bytes) -> bytes:
    """Return what a header belongs to: of each family all are added or, where the answer has one itself, none."""
    return next((family for family in (b"x-ratelimit-", b"ratelimit") if name.startswith(family)), name)


async def _by_exception_handler(app: Any, request: Request, decision: Decision) -> Response | None:
    """Answer as if the app itself had raised an `HTTPException`; `None` where it has no handler for it."""
    if "app" not in request.scope:  # The limiter is around the whole app, which sets it.
        request = Request({**request.scope, "app": _app_inside(app)}, request.receive)
    handlers = getattr(request.app, "exception_handlers", {})
    status, _, body = render_problem(decision, ResponseStyle())
    kind = next((each for each in handlers if _is_http_exception(each)), HTTPException)
    handler = handlers.get(status) or handlers.get(kind)
    if handler is None:
        return None
    answered = handler(request, kind(status, detail=json.loads(body)["detail"]))
    response: Response = await answered if inspect.isawaitable(answered) else answered
    return response


def _app_inside(app: Any) -> Any:
    """Return the app of Starlette or FastAPI at or below an ASGI app, through its middlewares' `app`, or `None`."""
    while app is not None and not hasattr(app, "exception_handlers"):
        app = getattr(app, "app", None)
    return app


def _is_http_exception(kind: Any) -> bool:
    """Say whether this is FastAPI's own `HTTPException`, which its apps raise rather than Starlette's."""
    return isinstance(kind, type) and issubclass(kind, HTTPException) and kind.__module__ == "fastapi.exceptions"


def _rendered(decision: Decision, style: ResponseStyle) -> tuple[int, bytes, Headers]:
    """Return the status, the body and the fields of a refusal, made once for all that look alike: those of one second."""
    key = *shown_in_body(decision), *shown_in_headers(decision, style)
    found = style.refusals.get(key)
    if found is None:
        status, media_type, body = render_problem(decision, style)
        headers = [(b"content-type", media_type), *rejection_headers(decision, style)]
        found = style.refusals[key] = status, body, headers
    return found


def problem_of(decision: Decision, style: ResponseStyle, request_id: str) -> tuple[int, Headers, bytes]:
    """Return the status, all fields and the body of a refusal that is answered with a problem."""
    status, body, headers = _rendered(decision, style)
    if style.problem == "rfc9457" and style.members == "all":
        body = with_instance(body, request_id)
        return status, [(b"content-length", b"%d" % len(body)), *headers], body
    return status, [(b"content-length", b"%d" % len(body)), *headers, request_id_header(request_id)], body


async def _send_problem(
    decision: Decision, style: ResponseStyle, connection: tuple[Scope, Receive, Send], request_id: str
) -> None:
    scope, receive, send = connection
    status, headers, body = problem_of(decision, style, request_id)
    prefix = ""
    if scope["type"] == "websocket":
        await receive()  # "websocket.connect", before which nothing may be sent.
        if _DENIAL_RESPONSE not in (scope.get("extensions") or ()):
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": "rate limit exceeded"})
            return
        prefix = "websocket."
    await send({"type": f"{prefix}http.response.start", "status": status, "headers": headers})
    sent = b"" if scope.get("method") == "HEAD" else body
    await send({"type": f"{prefix}http.response.body", "body": sent})
