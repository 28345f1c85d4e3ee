"""The edge: a pure ASGI middleware that charges each request and renders the decision."""

import inspect
import logging
from typing import Any, Final

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratelimit.decision import Decision
from ratelimit.errors import ConfigurationError
from ratelimit.http.advice import log_advice
from ratelimit.http.costs import ask
from ratelimit.http.custody import Trail, serve_kept
from ratelimit.http.endpoints import Endpoints
from ratelimit.http.headers import Headers, refused
from ratelimit.http.identify import ClientAddress, Identify, default_identify
from ratelimit.http.problems import problem
from ratelimit.identity import Identity
from ratelimit.limiter import Limiter
from ratelimit.rules import Rules
from ratelimit.settings import RateLimitSettings
from ratelimit.stores import Op
from ratelimit.style import ResponseStyle

logger = logging.getLogger("ratelimit")

_NOBODY: Final = Identity()
_FREE: Final = Decision(allowed=True)
_TRAIL: Final = "ratelimit.trail"
_DENIAL: Final = "websocket.http.response"
_TRY_AGAIN_LATER: Final = 1013


class RateLimitMiddleware:
    """Charge every HTTP request and WebSocket handshake, refuse what exceeds a limit, and tell all others how they stand.

    Takes `settings` and makes a limiter of its own, which it closes when the app shuts down, or the `limiter` that is
    handed in. `identify` tells who asks; by default the bearer token or API key, plus the client's address behind the
    settings' trusted proxies. The decision of a request is `request.state.ratelimit`. A refused request does not
    reach the app, and its body is not read. Mounted twice or nested, each policy is charged once and the most
    restrictive one speaks. Decorators and routes are checked when the app starts: what cannot work raises
    `ConfigurationError` there.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: RateLimitSettings | None = None,
        identify: Identify | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        _check_arguments(settings, limiter)
        self.app = app
        self.limiter = limiter or Limiter(settings or RateLimitSettings())
        self._owns_limiter = limiter is None
        self._own_identify = identify is not None
        proxies = self.limiter.settings.trusted_proxies
        self._identify = identify or default_identify(proxies)
        self._address = ClientAddress(proxies)
        self._endpoints = Endpoints(app, self.limiter.plan)
        self._warn_about_cors()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._lifespan_send(scope, send))
            return
        if scope["type"] not in ("http", "websocket") or _is_preflight(scope):
            await self.app(scope, receive, send)
            return
        rules = self.limiter.plan.rules(self._endpoints.find(scope))
        if not rules.policies:
            scope.setdefault("state", {}).setdefault("ratelimit", _FREE)
            await self.app(scope, receive, send)
            return
        await self._serve(rules, scope, receive, send)

    async def _serve(self, rules: Rules, scope: Scope, receive: Receive, send: Send) -> None:
        outer: Trail | None = scope.get(_TRAIL)
        if not self.limiter.overrides.watching:
            await self.limiter.start()
        identity, asked = await self._identity(scope), None
        if rules.asking:
            asked, receive = await ask(rules.asking, scope, receive)
        beside = outer.policies if outer is not None else ()
        charges = rules.charges(identity, now=self.limiter.clock(), beside=beside, asked=asked)
        decision = await self.limiter.decide(charges, op=Op.HOLD if rules.holds else Op.CHARGE)
        trail = Trail(decision, rules) if outer is None else outer.extended(decision, rules)
        scope.setdefault("state", {})["ratelimit"] = trail.decision
        if not trail.decision.allowed:
            trail.refused = True
            await _refuse(trail.decision, rules.style, scope, receive, send)
            return
        if outer is None:
            scope[_TRAIL] = trail
            send = trail.wrap(send)
        if decision.receipts and rules.kept:
            await serve_kept(self.app, decision.receipts[0], trail, (scope, receive, send))
            return
        try:
            await self.app(scope, receive, send)
        finally:
            for receipt in decision.receipts:
                if receipt.unsettled:
                    await receipt.finish()

    async def _identity(self, scope: Scope) -> Identity:
        connection = HTTPConnection(scope)
        try:
            found = self._identify(connection)
            if isinstance(found, Identity):
                return found
            return _identity(await found if inspect.isawaitable(found) else found)
        except Exception:
            # A limiter answers neither 401 nor 500: the app's own authentication has the last word.
            logger.exception("identify failed; the request is limited by the client's address alone")
            return Identity(ip=self._address(connection))

    def _lifespan_send(self, scope: Scope, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.limiter.start()
                # Here, what is wrong with a decorator keeps the app from starting.
                index = self._endpoints.build(scope.get("app"))
                log_advice(self.limiter.settings, index, own_identify=self._own_identify)
            elif message["type"].startswith("lifespan.shutdown") and self._owns_limiter:
                await self.limiter.aclose()
            await send(message)

        return wrapped

    def _warn_about_cors(self) -> None:
        inner: Any = self.app
        for _ in range(100):
            if isinstance(inner, CORSMiddleware):
                logger.warning(
                    "CORSMiddleware is inside RateLimitMiddleware: refusals will lack its headers and browsers will "
                    "hide them from scripts; add CORSMiddleware last, so that it is outermost"
                )
                return
            inner = getattr(inner, "app", None)


async def _refuse(decision: Decision, style: ResponseStyle, scope: Scope, receive: Receive, send: Send) -> None:
    status, media_type, body = problem(decision, style)
    headers: Headers = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(body)),
        *refused(decision, style),
    ]
    prefix = ""
    if scope["type"] == "websocket":
        await receive()  # "websocket.connect", before which nothing may be sent.
        if _DENIAL not in (scope.get("extensions") or ()):
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": "rate limit exceeded"})
            return
        prefix = "websocket."
    await send({"type": f"{prefix}http.response.start", "status": status, "headers": headers})
    sent = b"" if scope.get("method") == "HEAD" else body
    await send({"type": f"{prefix}http.response.body", "body": sent})


def _identity(found: object) -> Identity:
    if found is None:
        return _NOBODY
    if not isinstance(found, Identity):
        raise TypeError(f"identify must return an Identity or None, not {type(found).__name__}")
    return found


def _check_arguments(settings: object, limiter: object) -> None:
    if settings is not None and limiter is not None:
        raise ConfigurationError("RateLimitMiddleware takes settings or a limiter, not both")
    for name, value, kind in (("settings", settings, RateLimitSettings), ("limiter", limiter, Limiter)):
        if value is not None and not isinstance(value, kind):
            raise ConfigurationError(f"RateLimitMiddleware: {name} must be a {kind.__name__}, not {value!r:.100}")


def _is_preflight(scope: Scope) -> bool:
    """Say whether this is a CORS preflight (Fetch standard §3.2.2), which is never counted."""
    if scope.get("method") != "OPTIONS":
        return False
    names = {name.lower() for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names
