"""The middleware: charges each request and renders the decision. Pure ASGI."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratelimit.asgi.callers import IDENTIFY, IDENTITY, Callers
from ratelimit.asgi.connection_warnings import ConnectionWarnings
from ratelimit.asgi.decorators import DECISION
from ratelimit.asgi.identify import Identify, unverified_identity
from ratelimit.asgi.lifecycle import Connection, RequestContext, serve_with_settlement
from ratelimit.asgi.openapi_document import LimitsDocumentation
from ratelimit.asgi.refusal import OnRefused, check_on_refused, send_refusal
from ratelimit.asgi.request_cost import evaluate_costs
from ratelimit.asgi.request_dimensions import RequestDimensions
from ratelimit.asgi.request_id import request_id_of
from ratelimit.asgi.request_reader import RequestReader
from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.asgi.routing.route_index import NOT_ALLOWED
from ratelimit.asgi.startup_checks import check_arguments, check_identify, log_startup_warnings
from ratelimit.config.dimension_sources import DimensionSource
from ratelimit.config.settings import RateLimitSettings
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.listeners import Listener
from ratelimit.errors import MissingMiddlewareError
from ratelimit.limiter import Limiter
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.endpoint_policies import EndpointPolicies

logger = logging.getLogger("ratelimit")

_UNLIMITED: Final = Decision(allowed=True)
_NO_CHARGES: Final[Sequence[Charge]] = ()
_PREFLIGHT: Final = Endpoint("OPTIONS")
_CONTEXT: Final = "ratelimit.context"
"""The key of the scope under which the outermost limiter keeps a request's context."""
LIMITER: Final = "ratelimit.limiter"
"""The key of the scope under which a request's limiter is found."""


class RateLimitMiddleware:
    """Charge every HTTP request and WebSocket handshake, refuse those over a limit, and add headers to all others.

    Takes `settings` and makes a limiter of its own, which it closes when the app shuts down, or the `limiter` that is
    handed in. `listeners` get to know what is decided. `identify` tells who makes a request; by default the API key or bearer token, plus the client's address
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
        listeners: Sequence[Listener] = (),
        on_refused: OnRefused | Literal["exception_handler"] | None = None,
        openapi: bool = True,
    ) -> None:
        check_arguments(settings, limiter, listeners)
        check_identify(identify)
        self.app = app
        self._on_refused = check_on_refused(on_refused, app)
        self.limiter = limiter or Limiter(settings or RateLimitSettings(), listeners=listeners)
        self._owns_limiter = limiter is None
        self.has_own_identify = identify is not None
        proxies = self.limiter.settings.trusted_proxies
        unverified = unverified_identity(proxies)
        watch = ConnectionWarnings(self.limiter, has_own_identify=identify is not None).watch
        own = unverified if identify is None else identify
        self._callers = Callers(own, unverified, self.limiter.observer.failed, watch)
        self._dimensions = RequestDimensions(self.limiter.settings.max_body, self.limiter.observer.failed)
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
            if IDENTIFY not in scope:
                self.limiter.observer.passed("exempt", _PREFLIGHT)
            await self._serve_exempt(scope, receive, send)
        else:
            endpoint, policies = self._place(scope)
            if policies.is_exempt:
                await self._serve_exempt(scope, receive, send)
            else:
                await self._limit(endpoint, policies, (scope, receive, send))

    def _place(self, scope: Scope) -> tuple[Endpoint, EndpointPolicies]:
        """Return the endpoint of a request, and what holds there."""
        scope[LIMITER] = self.limiter
        endpoint, path_params = self.endpoint_matcher.match(scope)
        if path_params:  # As routing will find them.
            scope["path_params"] = {**scope.get("path_params", {}), **path_params}
        policies = self.limiter.resolver.policies_at(endpoint)
        if policies.is_exempt and endpoint is not NOT_ALLOWED[0] and IDENTIFY not in scope:
            self.limiter.observer.passed("exempt", endpoint)  # Else an outer limiter has said so.
        return endpoint, policies

    async def _limit(self, endpoint: Endpoint, policies: EndpointPolicies, connection: Connection) -> None:
        """Limit one request: identity, charges, decision, and then the app's response or a problem."""
        (scope, receive, send), limiter = connection, self.limiter
        ask_store = limiter.poller.is_running or await limiter.start()
        outer: RequestContext | None = scope.get(_CONTEXT)
        found = self._callers.begin(scope)
        identity = found if isinstance(found, Identity) else await found
        reader = None
        if policies.reads_request or limiter.has_listed:
            identity, reader = await self._add_dimensions(policies, identity, connection)
        began = limiter.observer.began()
        decision, charges = limiter.listed(identity), _NO_CHARGES
        if decision is None:
            costs = None if reader is None else await self._costs(policies, reader)
            already = () if outer is None else outer.policies
            charges = policies.charges(identity, now=limiter.clock(), already_charged=already, dynamic_costs=costs)
            decision = limiter.decide_now(charges, acquire=policies.has_concurrency)
            if decision is None:
                decision = await limiter.decide(charges, acquire=policies.has_concurrency, ask_store=ask_store)
        request_id = None if decision.allowed else request_id_of(scope)
        if charges or outer is None or not decision.allowed:  # Else an outer limiter has taken note.
            self._note(decision, charges, identity, endpoint, began, request_id)
        receive = receive if reader is None else reader.receive
        context = RequestContext(decision, policies) if outer is None else outer.add(decision, policies)
        scope.setdefault("state", {}).update({DECISION: context.decision, IDENTITY: identity})
        if outer is None and context.decision.allowed:
            scope[_CONTEXT], send = context, context.adding_headers(send)
        if policies.needs_settlement or not context.decision.allowed:
            await self._answer(context, decision, policies, (scope, receive, send), request_id)
        else:
            try:
                await self.app(scope, receive, send)
            finally:
                for settlement in decision.unsettled:
                    await settlement.release()

    async def _add_dimensions(
        self, policies: EndpointPolicies, identity: Identity, connection: Connection
    ) -> tuple[Identity, RequestReader | None]:
        """Return the identity with its dimensions, and what reads the request, where something has to read it."""
        scope, receive, _ = connection
        sources = policies.sources if not self.limiter.has_listed else self._with_listed(policies.sources)
        if not (sources or policies.dynamic_cost_policies):
            return identity, None
        reader = RequestReader(scope, receive)
        return await self._dimensions.add_to(identity, sources, reader), reader

    def _note(  # noqa: PLR0917 - on the path of each request
        self,
        decision: Decision,
        charges: Sequence[Charge],
        identity: Identity,
        endpoint: Endpoint,
        began: float,
        request_id: str | None,
    ) -> None:
        observer = self.limiter.observer
        observer.tally(decision, charges, began)
        if observer.hears or decision.unrendered is None:
            self.limiter.said(decision, charges, identity, endpoint, began, request_id)

    async def _answer(
        self,
        context: RequestContext,
        decision: Decision,
        policies: EndpointPolicies,
        connection: Connection,
        request_id: str | None,
    ) -> None:
        """Refuse the request, or run the app and settle this limiter's own `decision` when the response is known."""
        if not context.decision.allowed:
            context.refused = True
            self._callers.refused(connection[0], context.decision.retry_after)
            await send_refusal(context.decision, policies.style, self._on_refused, connection, request_id or "")
        elif decision.settlements:
            await serve_with_settlement(self.app, decision.settlements[0], context, connection)
        else:
            await self.app(*connection)

    async def _costs(self, policies: EndpointPolicies, reader: RequestReader) -> dict[str, int] | None:
        return await evaluate_costs(policies.dynamic_cost_policies, reader, self.limiter.observer.failed)

    def _with_listed(self, sources: Mapping[str, DimensionSource]) -> Mapping[str, DimensionSource]:
        """Return these sources with those of the dimensions by which callers are blocked or allowed."""
        named = self.limiter.blocks.dimensions | self.limiter.allowed.dimensions
        return {**{name: source for name, source in self.limiter.resolver.sources.items() if name in named}, **sources}

    async def _identity_of(self, scope: Scope) -> Identity:
        """Return who makes a request that is not limited, with the dimensions that its headers and query have."""
        identity = await self._callers.identify(scope)
        sources = {
            name: source for name, source in self.limiter.resolver.all_sources().items() if _is_outside_body(source)
        }
        return await self._dimensions.add_to(identity, sources, RequestReader(scope, _no_body))

    async def _serve_exempt(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        state.setdefault(DECISION, _UNLIMITED)
        scope[IDENTIFY] = self._identity_of
        if scope["type"] == "websocket":  # Its messages may be charged by name.
            state[IDENTITY] = await self._identity_of(scope)
        await self.app(scope, receive, send)

    def _lifespan_send(self, scope: Scope, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.limiter.start()
                # A mistake in a decorator keeps the app from starting here.
                index = self.endpoint_matcher.read_routes(scope.get("app"))
                log_startup_warnings(self.limiter, index, has_own_identify=self.has_own_identify)
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
                    "hide them from scripts; add CORSMiddleware last, so that it is outermost [RL205]"
                )
                return
            inner = getattr(inner, "app", None)


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _is_outside_body(source: DimensionSource) -> bool:
    return isinstance(source, str) and not source.startswith("json:")


def limiter_of(connection: HTTPConnection) -> Limiter:
    """Return the limiter of the middleware that a request or WebSocket has passed, the innermost of several.

    Raises `ConfigurationError` where it has passed none.
    """
    found = connection.scope.get(LIMITER)
    if not isinstance(found, Limiter):
        raise MissingMiddlewareError("limiter_of: the request has not passed a RateLimitMiddleware [RL203]")
    return found


def _is_preflight(scope: Scope) -> bool:
    """Say whether this is a CORS preflight (Fetch standard §3.2.2), which is never counted."""
    if scope.get("method") != "OPTIONS":
        return False
    names = {name.lower() for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names
