"""What is kept for a request while the app answers it: the headers that it will have, and the slots that it holds."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratelimit.decision import Decision, Receipt
from ratelimit.http.headers import admitted
from ratelimit.policy import Policy
from ratelimit.rules import Rules

Connection = tuple[Scope, Receive, Send]

_STARTS: Final = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_ENDS: Final = ("http.response.body", "http.response.zerocopysend", "http.response.pathsend")
_CLOSE: Final = "websocket.close"
_SWITCHING: Final = 101
_FORBIDDEN: Final = 403
"""What a client sees of a WebSocket that is closed before it is accepted."""
_FAILED: Final = 500


class Trail:
    """What limiters have done to one request so far; the outermost one renders it."""

    __slots__ = ("decision", "policies", "refused", "style")

    def __init__(self, decision: Decision, rules: Rules) -> None:
        self.decision = decision
        self.policies: tuple[Policy, ...] = rules.policies
        self.style = rules.style
        self.refused = False

    def extended(self, inner: Decision, rules: Rules) -> "Trail":
        """Add what an inner limiter decided: all limits count, and the most restrictive one speaks."""
        outer = self.decision
        if inner.allowed or inner.binding is not None:
            inner = Decision.of(
                (*outer.limits, *inner.limits),
                degraded=outer.degraded or inner.degraded,
                receipts=(*outer.receipts, *inner.receipts),
            )
        self.decision = inner
        self.policies += rules.policies
        return self

    def wrap(self, send: Send) -> Send:
        """Return a `send` that adds the fields of the decision, as it stands then, to the start of a response."""

        async def wrapped(message: Message) -> None:
            if message["type"] in _STARTS and not self.refused:
                present = list(message.get("headers", ()))
                present += admitted(self.decision, self.style, message.get("status", 101), present)
                message = {**message, "headers": present}
            await send(message)

        return wrapped


async def serve_kept(app: ASGIApp, receipt: Receipt, trail: Trail, connection: Connection) -> None:
    """Run the app while its slots are renewed; give back what its answer gives back, and all slots however it ends.

    Slots that are held for the response alone go when its last chunk was sent, the others when the app returns.
    """
    scope, receive, send = connection
    started = False

    async def watched(message: Message) -> None:
        nonlocal started
        kind = message["type"]
        if not started and kind in (*_STARTS, _CLOSE):
            started = True
            if not trail.refused:  # Else an inner limiter answers, and not the app.
                await receipt.refund(message.get("status", _FORBIDDEN if kind == _CLOSE else _SWITCHING))
        await send(message)
        if kind in _ENDS and not message.get("more_body", False):
            await receipt.finish("response")

    receipt.keep()
    try:
        await app(scope, receive, watched)
    except Exception:
        if not started:
            await receipt.refund(_FAILED)
        raise
    finally:
        await receipt.finish()
