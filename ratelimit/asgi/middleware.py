"""The middleware: charges each request and renders the decision. Pure ASGI."""

import logging
from typing import Any, Final, Literal, Self

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratelimit.asgi.callers import IDENTIFY, IDENTITY, Callers
from ratelimit.asgi.connection_warnings import ConnectionWarnings
from ratelimit.asgi.decorators import DECISION
from ratelimit.asgi.identify import Identify, unverified_identity
from ratelimit.asgi.lifecycle import Connection, RequestContext, serve_and_settle, serve_with_settlement
from ratelimit.asgi.openapi_document import LimitsDocumentation
from ratelimit.asgi.refusal import OnRefused, check_on_refused, send_refusal
from ratelimit.asgi.request_cost import evaluate_costs
from ratelimit.asgi.request_dimensions import RequestDimensions
from ratelimit.asgi.request_reader import RequestReader
from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.asgi.startup_checks import log_startup_warnings
from ratelimit.config.settings import RateLimitSettings
from ratelimit.enforcement.decision import Decision
from ratelimit.errors import ConfigurationError
from ratelimit.limiter import Limiter
from ratelimit.resolver.endpoint_policies import EndpointPolicies

logger = logging.getLogger("ratelimit")

_UNLIMITED: Final = Decision(allowed=True)
_CONTEXT: Final = "ratelimit.context"
"""The key of the scope under which the outermost limiter keeps a request's context."""
LIMITER: Final = "ratelimit.limiter"
"""The key of the scope under which a request's limiter is found."""


class RateLimitMiddleware:
    """Charge every HTTP request and WebSocket handshake, refuse those over a limit, and add headers to all others.

    Takes `settings` and makes a limiter of its own, which it closes when the app shuts down, or the `limiter` that is
    handed in. `identify` tells who makes a request; by default the API key or bearer token, plus the client's address
    behind the settings' trusted proxies. The decision of a request is `request.state.ratelimit`. A refused request does
    not reach the app, and its body is not read. `on_refused(request, decision)`, sync or async, returns the app's own
    `Response` to a refused HTTP request, which gets the headers of the refusal; `"exception_handler"` lets the app's
    handler for the status, or for `HTTPException`, answer. Mounted twice or nested, each policy is charged once and the most
    restrictive one is reported. Decorators and routes are checked when the app starts: a mistake in them raises
    `ConfigurationError` there. With `openapi` the document that a FastAPI app serves includes the limits, as
    `document_limits` returns it. `limiter`, `endpoint_matcher` and `documentation` are its parts.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: RateLimitSettings | None = None,
        identify: Identify | None = None,
        limiter: Limiter | None = None,
        on_refused: OnRefused | Literal["exception_handler"] | None = None,
        openapi: bool = True,
    ) -> None:
        _check_arguments(settings, limiter)
        self.app = app
        self._on_refused = check_on_refused(on_refused, app)
        self.limiter = limiter or Limiter(settings or RateLimitSettings())
        self._owns_limiter = limiter is None
        self._has_own_identify = identify is not None
        proxies = self.limiter.settings.trusted_proxies
        unverified = unverified_identity(proxies)
        if identify is None:
            identify = ConnectionWarnings(self.limiter).watching(unverified)
        self._callers = Callers(identify, unverified)
        self._dimensions = RequestDimensions(self.limiter.settings.max_body)
        self.endpoint_matcher = EndpointMatcher(app, self.limiter.resolver)
        self.documentation = LimitsDocumentation(app, self.endpoint_matcher, has_own_answers=on_refused is not None)
        self._is_documented = not openapi
        self._warn_about_cors()

    @classmethod
    def wrap(cls, app: ASGIApp, **options: Any) -> Self:
        """Return the whole app with this middleware around it, as a server runs it; `options` are the constructor's.

        Added by `add_middleware`, a middleware does not see the response to an error that the app does not handle: the
        framework answers 500 further outside. Around the whole app it adds its headers to that response too.
        """
        return cls(app, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if not self._is_documented:
            self._is_documented = True
            self.documentation.serve(scope.get("app"))
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._lifespan_send(scope, send))
        elif scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif _is_preflight(scope):
            scope[LIMITER] = self.limiter
            await self._serve_unlimited(scope, receive, send)
        else:
            await self._limit(scope, receive, send)

    async def _limit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Limit one request: endpoint, identity, charges, decision, and then the app's response or a problem."""
        scope[LIMITER] = self.limiter
        endpoint, path_params = self.endpoint_matcher.match(scope)
        if path_params:  # As routing will find them.
            scope["path_params"] = {**scope.get("path_params", {}), **path_params}
        policies = self.limiter.resolver.policies_at(endpoint)
        if not policies.policies and (policies.is_exempt or not len(self.limiter.blocks)):
            await self._serve_unlimited(scope, receive, send)
            return
        ask_store = self.limiter.is_started or await self.limiter.start()
        outer: RequestContext | None = scope.get(_CONTEXT)
        identity = await self._callers.identify(scope)
        dynamic_costs, decision = None, self.limiter.blocked(identity)
        if decision is None and policies.reads_request:
            reader = RequestReader(scope, receive)
            identity = await self._dimensions.add_to(identity, policies.sources, reader)
            dynamic_costs, receive = await evaluate_costs(policies.dynamic_cost_policies, reader), reader.receive
        if decision is None:
            charges = policies.charges(
                identity,
                now=self.limiter.clock(),
                already_charged=() if outer is None else outer.policies,
                dynamic_costs=dynamic_costs,
            )
            decision = await self.limiter.decide(charges, acquire=policies.has_concurrency, ask_store=ask_store)
        context = RequestContext(decision, policies) if outer is None else outer.add(decision, policies)
        scope.setdefault("state", {}).update({DECISION: context.decision, IDENTITY: identity})
        if outer is None and context.decision.allowed:
            scope[_CONTEXT] = context
            send = context.adding_headers(send)
        await self._answer(context, decision, policies, (scope, receive, send))

    async def _answer(
        self, context: RequestContext, decision: Decision, policies: EndpointPolicies, connection: Connection
    ) -> None:
        """Refuse the request, or run the app; `decision` is this limiter's own part of the context's."""
        if not context.decision.allowed:
            context.refused = True
            self._callers.refused(connection[0], context.decision.retry_after)
            await send_refusal(context.decision, policies.style, self._on_refused, connection)
        elif policies.needs_settlement and decision.settlements:
            await serve_with_settlement(self.app, decision.settlements[0], context, connection)
        else:
            await serve_and_settle(self.app, decision, connection)

    async def _serve_unlimited(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        state.setdefault(DECISION, _UNLIMITED)
        scope[IDENTIFY] = self._callers.identify
        if scope["type"] == "websocket":  # Its messages may be charged by name.
            state[IDENTITY] = await self._callers.identify(scope)
        await self.app(scope, receive, send)

    def _lifespan_send(self, scope: Scope, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.limiter.start()
                # A mistake in a decorator keeps the app from starting here.
                index = self.endpoint_matcher.read_routes(scope.get("app"))
                log_startup_warnings(self.limiter.settings, index, has_own_identify=self._has_own_identify)
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


def limiter_of(connection: HTTPConnection) -> Limiter:
    """Return the limiter of the middleware that a request or WebSocket has passed, the innermost of several.

    Raises `ConfigurationError` where it has passed none.
    """
    found = connection.scope.get(LIMITER)
    if not isinstance(found, Limiter):
        raise ConfigurationError("limiter_of: the request has not passed a RateLimitMiddleware")
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
