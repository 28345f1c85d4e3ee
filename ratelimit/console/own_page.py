"""The caller's own page: what it has used of its quotas and limits, read-only, of this caller alone."""

from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ratelimit.asgi.caller_status import limits_of_caller, quotas_of_caller
from ratelimit.asgi.callers import identity_of
from ratelimit.asgi.middleware import limiter_of
from ratelimit.config.declarations import ATTRIBUTE, EndpointDeclaration
from ratelimit.console.assets import asset
from ratelimit.console.rendering import render_bare
from ratelimit.console.security import protected
from ratelimit.console.visit import base_of
from ratelimit.errors import ConfigurationError, StoreError
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity

_TITLE: Final = "Your limits"
_UNKNOWN: Final = Identity()


class CallerPage:
    """An ASGI app with one page, which tells callers what they have left: `app.mount("/limits", CallerPage())`.

    Who asks is whom the app's `identify` finds, by its session or token, so each caller sees itself alone. It is not charged,
    and served also to callers that are refused elsewhere. Policies in shadow and the capacity of the service are left out.
    `title` is the heading. Without a `limiter`, that of the middleware is shown. The app has to be behind the
    `RateLimitMiddleware`, whose `identify` is asked.
    """

    def __init__(self, limiter: Limiter | None = None, *, title: str = _TITLE) -> None:
        if limiter is not None and not isinstance(limiter, Limiter):
            raise ConfigurationError(f"limiter: must be a Limiter, got {type(limiter).__name__} [RL206]")
        self._limiter, self._title = limiter, title
        self._pages = Starlette(routes=[Route("/", self._own), Route("/static/{name}", asset)])
        setattr(self, ATTRIBUTE, EndpointDeclaration(exempt=True))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        await self._pages(scope, receive, protected(send) if scope["type"] == "http" else send)

    async def _own(self, request: Request) -> Response:
        limiter, identity, base = self._limiter or limiter_of(request), await identity_of(request), base_of(request)
        if identity == _UNKNOWN:
            text = "Sign in, or send your token: the limits that are shown here are those of one caller."
            return render_bare("message.html", base, status=403, title="It is not known who you are", text=text)
        try:
            limits, quotas = await limits_of_caller(limiter, identity), await quotas_of_caller(limiter, identity)
        except StoreError:
            text = "How much you have used is not known at the moment. Try again in a minute."
            return render_bare("message.html", base, status=503, title="Not available", text=text)
        return render_bare("own.html", base, title=self._title, limits=limits, quotas=quotas)
