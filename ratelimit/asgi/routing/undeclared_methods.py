"""Requests for a method that the route of their path does not serve: which of them the framework surely answers with 405.

Such a request does no work and is not charged. Where anything of the app's own may serve it after all, it is charged.
"""

from collections.abc import Iterable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Match, Router

from ratelimit.asgi.routing.framework import matches_by_itself, visible_route

_FRAMEWORKS: Final = ("starlette.routing", "fastapi.routing", "starlette.applications", "fastapi.applications")

_TRANSPARENT: Final = frozenset(
    {
        "fastapi.middleware.asyncexitstack.AsyncExitStackMiddleware",
        "ratelimit.asgi.middleware.RateLimitMiddleware",
        "starlette.middleware.body_limit.RequestBodyLimitMiddleware",
        "starlette.middleware.cors.CORSMiddleware",
        "starlette.middleware.errors.ServerErrorMiddleware",
        "starlette.middleware.exceptions.ExceptionMiddleware",
        "starlette.middleware.gzip.GZipMiddleware",
        "starlette.middleware.sessions.SessionMiddleware",
    }
)
"""Middlewares that change neither method nor path, and answer no request that a route would answer with 405.

`AuthenticationMiddleware` is none of them: its answer tells whether a credential is right, which must be counted.
"""

_DISPATCHING: Final = ("__init__", "__await__", "__getattribute__", "dispatch", "method_not_allowed")
"""What a class-based endpoint must not redefine, so that a method without a handler is answered with 405."""

_INSTANCE_ATTRIBUTES: Final = frozenset({"scope", "receive", "send", "_allowed_methods"})
_MAX_LAYERS: Final = 100


def leads_directly(app: Any) -> bool:
    """Say whether a request reaches the routes at or below an ASGI app with the method and path that it has here."""
    for _ in range(_MAX_LAYERS):
        if isinstance(app, Starlette):
            return _is_plain_app(app) and leads_directly(app.router)
        if isinstance(app, Router):
            return _is_plain_router(app)
        if _name(type(app)) not in _TRANSPARENT:
            return False
        app = app.app
    return False


def include_directly(routers: Iterable[Any]) -> bool:
    """Say whether routers that FastAPI included hand requests on as its own class does."""
    return all(_is_framework(getattr(router, name, None)) for router in routers for name in ("matches", "handle"))


def rejects_method(route: Any, method: str, match: Match) -> bool:
    """Say whether the framework itself answers 405 to a request of this method, which `route` has matched so.

    A route that declares methods matches the others partially. A class-based endpoint matches all of them, and rejects
    those for which it has no handler. What a class redefines of this is trusted with nothing.
    """
    if match is Match.FULL:
        return _lacks_handler(visible_route(route), method)
    handled_by = getattr(route, "starlette_route", None) or getattr(route, "original_route", route)
    return not matches_by_itself(route) and _is_framework(getattr(handled_by, "handle", None))


def _is_plain_app(app: Starlette) -> bool:
    is_usual = all(_is_framework(getattr(type(app), name)) for name in ("__call__", "build_middleware_stack"))
    return is_usual and all(_name(each.cls) in _TRANSPARENT for each in app.user_middleware)


def _is_plain_router(router: Router) -> bool:
    # Middlewares of the router itself would stand here in place of its method.
    return _is_framework(type(router).__call__) and _is_framework(router.middleware_stack)


def _lacks_handler(route: Any, method: str) -> bool:
    handler = getattr(route, "endpoint", None)
    if not isinstance(handler, type) or not issubclass(handler, HTTPEndpoint) or route.app is not handler:
        return False
    is_usual = all(getattr(handler, name) is getattr(HTTPEndpoint, name) for name in _DISPATCHING)
    if not is_usual or hasattr(handler, "__getattr__"):
        return False
    names = {method.lower(), "get"} if method == "HEAD" else {method.lower()}
    return not names & _INSTANCE_ATTRIBUTES and not any(hasattr(handler, name) for name in names)


def _is_framework(function: Any) -> bool:
    return getattr(function, "__module__", None) in _FRAMEWORKS


def _name(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
