"""The console as an app to mount: its pages, who may see them, and what happens to errors."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ratelimit.asgi.authorization import Authorize, check_authorize, operator_of
from ratelimit.asgi.middleware import limiter_of
from ratelimit.config.declarations import ATTRIBUTE, EndpointDeclaration
from ratelimit.console.actions import change
from ratelimit.console.assets import asset
from ratelimit.console.callers import callers_page, search, single_caller_page
from ratelimit.console.live import live_events, live_page, refusal_page
from ratelimit.console.overview import overview
from ratelimit.console.policy_page import policy_page
from ratelimit.console.quotas import quota_csv, quota_page, quotas_page
from ratelimit.console.rendering import render_bare
from ratelimit.console.security import csrf_token, protected
from ratelimit.console.visit import Visit, base_of
from ratelimit.errors import ConfigurationError, StoreError
from ratelimit.limiter import Limiter

Page = Callable[[Visit], Awaitable[Response]]
"""Answers a visit."""

_EXEMPT: Final = EndpointDeclaration(exempt=True)
_TITLES: Final = {403: "You may not do that", 404: "There is no such page", 413: "That is too large"}
_READ_ONLY: Final = "The console is read-only here: console(…, authorize_changes=…) says who may change limits. [RL223]"


class Console:
    """An ASGI app that shows limits and quotas in a browser: `app.mount("/ratelimit", Console(limiter, authorize=…))`.

    `authorize` is asked for each request, as that of `admin_routes`: what is false is answered with 403, and a name is kept with
    what is changed; without it `ConfigurationError` is raised here. The console is read-only, unless `authorize_changes`
    says who may change limits; it may be the same function. Without a `limiter`, that of the middleware around the app is
    shown. Nothing of it is charged. `settings.statistics` gives its figures. Needs jinja2 (the extra `[console]`).
    """

    def __init__(
        self,
        limiter: Limiter | None = None,
        *,
        authorize: Authorize | None = None,
        authorize_changes: Authorize | None = None,
    ) -> None:
        if limiter is not None and not isinstance(limiter, Limiter):
            raise ConfigurationError(f"limiter: must be a Limiter, got {type(limiter).__name__} [RL206]")
        check_authorize(authorize)
        if authorize_changes is not None:
            check_authorize(authorize_changes, "authorize_changes")
        self._limiter, self._authorize, self._authorize_changes = limiter, authorize, authorize_changes
        self._pages = Starlette(routes=self._routes(), exception_handlers={HTTPException: _failed, **_HANDLERS})
        setattr(self, ATTRIBUTE, _EXEMPT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        await self._pages(scope, receive, protected(send) if scope["type"] == "http" else send)

    def _routes(self) -> list[Route]:
        return [
            Route("/", self._page(overview)),
            Route("/policies/{name:path}", self._page(policy_page)),
            Route("/callers", self._page(callers_page)),
            Route("/callers/search", self._page(search), methods=["POST"]),
            Route("/caller", self._page(single_caller_page)),
            Route("/quotas", self._page(quotas_page)),
            Route("/quotas/{name:path}.csv", self._page(quota_csv)),
            Route("/quotas/{name:path}", self._page(quota_page)),
            Route("/live", self._page(live_page)),
            Route("/live/events", self._page(live_events)),
            Route("/live/{id}", self._page(refusal_page)),
            Route("/change/{name}", self._page(change, changes=True), methods=["POST"]),
            Route("/static/{name}", asset),
        ]

    def _page(self, page: Page, *, changes: bool = False) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visit = await self._visit(request)
            if changes and not visit.may_change:
                raise HTTPException(403, _READ_ONLY)
            await visit.limiter.start()
            return await page(visit)

        return answer

    async def _visit(self, request: Request) -> Visit:
        authorize: Any = self._authorize
        operator = await operator_of(authorize, request)
        may_change, name = self._authorize_changes is self._authorize, operator
        if self._authorize_changes is not None and not may_change:
            try:
                name, may_change = await operator_of(self._authorize_changes, request), True
            except HTTPException:
                name = None
        return Visit(
            request=request,
            limiter=self._limiter or limiter_of(request),
            operator=name or operator,
            may_change=may_change,
            csrf=csrf_token(request),
        )


async def _failed(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    detail, headers = str(getattr(error, "detail", "")), getattr(error, "headers", None)
    page = render_bare("message.html", base_of(request), status=status, title=_TITLES.get(status, detail), text=detail)
    page.headers.update(headers or {})
    return page


async def _wrong(request: Request, error: Exception) -> Response:
    return render_bare("message.html", base_of(request), status=422, title="That cannot be done", text=str(error))


async def _store_away(request: Request, error: Exception) -> Response:
    del error
    text = "The store does not answer, so there is nothing to show. The app is served meanwhile, by the failure modes of its policies."
    return render_bare("message.html", base_of(request), status=503, title="The store is unavailable", text=text)


_HANDLERS: Final[dict[Any, Any]] = {ConfigurationError: _wrong, StoreError: _store_away}
