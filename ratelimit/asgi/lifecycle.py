"""Per-request state: the decision, the response headers to add, and what is corrected when the response is known."""

from typing import Final, Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratelimit.asgi.headers import response_headers
from ratelimit.config.policies import Policy
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.settlement import Settlement
from ratelimit.resolver.endpoint_policies import EndpointPolicies

Connection = tuple[Scope, Receive, Send]

_STARTS: Final = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_ENDS: Final = ("http.response.body", "http.response.zerocopysend", "http.response.pathsend")
_CLOSE: Final = "websocket.close"
_SWITCHING_PROTOCOLS: Final = 101
_FORBIDDEN: Final = 403
"""The status that a client sees of a WebSocket that is closed before it is accepted."""
_FAILED: Final = 500


class RequestContext:
    """The decisions of all limiters on one request so far; the outermost limiter renders them."""

    __slots__ = ("decision", "policies", "refused", "style")

    def __init__(self, decision: Decision, policies: EndpointPolicies) -> None:
        self.decision = decision
        self.policies: tuple[Policy, ...] = policies.policies
        self.style = policies.style
        self.refused = False

    def add(self, inner: Decision, policies: EndpointPolicies) -> Self:
        """Add what an inner limiter decided: all limits count, and the most restrictive one is reported."""
        outer = self.decision
        if inner.allowed or inner.binding is not None:
            inner = Decision.from_limits(
                (*outer.limits, *inner.limits),
                degraded=outer.degraded or inner.degraded,
                settlements=(*outer.settlements, *inner.settlements),
            )
        self.decision = inner
        self.policies += policies.policies
        return self

    def adding_headers(self, send: Send) -> Send:
        """Return a `send` that adds the headers of the decision, as it stands then, to the start of a response."""

        async def wrapped(message: Message) -> None:
            if message["type"] in _STARTS and not self.refused:
                present = list(message.get("headers", ()))
                present += response_headers(self.decision, self.style, message.get("status", 101), present)
                message = {**message, "headers": present}
            await send(message)

        return wrapped


async def serve_with_settlement(
    app: ASGIApp, settlement: Settlement, context: RequestContext, connection: Connection
) -> None:
    """Run the app while its permits are renewed; refund what its status refunds, and release all permits in the end.

    Permits that are held for the response alone are released after its last chunk, the others when the app returns, also
    where it fails.
    """
    scope, receive, send = connection
    started = False

    async def watched(message: Message) -> None:
        nonlocal started
        kind = message["type"]
        if not started and kind in (*_STARTS, _CLOSE):
            started = True
            if not context.refused:  # Otherwise an inner limiter answers, and not the app.
                await settlement.refund(message.get("status", _FORBIDDEN if kind == _CLOSE else _SWITCHING_PROTOCOLS))
        await send(message)
        if kind in _ENDS and not message.get("more_body", False):
            await settlement.release("response")

    settlement.start_renewal()
    try:
        await app(scope, receive, watched)
    except Exception:
        if not started:
            await settlement.refund(_FAILED)
        raise
    finally:
        await settlement.release()
