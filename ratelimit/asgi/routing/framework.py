"""What Starlette and FastAPI keep inside: routers, routes, and the scope that their routes match."""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.routing import Host, Match, Mount

Scope = MutableMapping[str, Any]

_FRAMEWORKS: Final = ("starlette.routing", "fastapi.routing")


@dataclass(frozen=True, slots=True)
class RoutePath:
    """What routing depends on, parsed from an `http` or `websocket` scope.

    `method` is in upper case, HEAD as GET. `path` is the path below `root_path`. `scope` is what the framework's routes
    match; it is not changed. `is_certain` says that the app looks for this very path, and not for another to which it
    would redirect.
    """

    scope: Scope
    method: str
    path: str
    is_certain: bool = True

    @classmethod
    def of(cls, scope: Scope) -> "RoutePath":
        """Return the route path of a scope."""
        method = scope.get("method", "GET").upper()
        return cls(scope, "GET" if method == "HEAD" else method, _path_below_root(scope))

    def with_scope(self, **changes: Any) -> "RoutePath":
        """Return the route path after changes of the scope, as a mount makes them."""
        scope = {**self.scope, **changes}
        return RoutePath(scope, self.method, _path_below_root(scope), self.is_certain)

    def with_other_slash(self) -> "RoutePath | None":
        """Return the path to which the framework redirects: with or without a slash at the end; `None` if none."""
        if self.scope["type"] != "http" or self.path == "/":
            return None
        path: str = self.scope["path"]
        return self.uncertain().with_scope(path=path.rstrip("/") if path.endswith("/") else path + "/")

    def uncertain(self) -> "RoutePath":
        """Return the route path of which it is not certain that the app routes it as it is routed here."""
        return replace(self, is_certain=False)


def _path_below_root(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path


def router_of(app: Any) -> Any:
    """Return the object that holds the routes at or below an ASGI app, through its middlewares' `app`, or `None`."""
    for _ in range(100):
        if app is None or isinstance(getattr(app, "routes", None), (list, tuple)):
            return app
        app = None if callable(getattr(type(app), "app", None)) else getattr(app, "app", None)
    return None


def redirects_slashes(router: Any) -> bool:
    """Say whether a router redirects a path with a wrong slash at its end."""
    return bool(getattr(getattr(router, "router", router), "redirect_slashes", False))


def router_below(mount: Mount | Host) -> Any:
    """Return the router inside a `Mount` or `Host`, or `None` where an app without visible routes is mounted."""
    return _MountedRouter(mount) if mount.routes else router_of(mount.app)


def flat_routes(routes: Sequence[Any]) -> Iterator[Any]:
    """Yield the routes that match by themselves: an included router of FastAPI gives its routes, with their prefixes."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            yield from contexts()


def included_routers(routes: Sequence[Any]) -> Iterator[Any]:
    """Yield the routers that FastAPI included among these routes, at any depth."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield route.original_router
            yield from included_routers(route.original_router.routes)


def visible_route(route: Any) -> Any:
    """Return the route whose attributes can be read: FastAPI's context of an included route wraps it."""
    return getattr(route, "starlette_route", None) or route


def dependency_calls(route: Any) -> Iterator[object]:
    """Yield what a route of FastAPI depends on, at any depth: those of its app and its routers first."""
    waiting = list(getattr(getattr(route, "dependant", None), "dependencies", ()))
    while waiting:
        dependant = waiting.pop(0)
        yield dependant.call
        waiting = [*dependant.dependencies, *waiting]


def matches_by_itself(route: Any) -> bool:
    """Say whether a route class has its own matching, which more than type, method and path may decide."""
    return type(getattr(route, "original_route", route)).matches.__module__ not in _FRAMEWORKS


def matcher_of(route: Any) -> Any:
    """Return the object whose `matches(scope)` answers as the framework's routing would."""
    included = getattr(route, "original_route", None) is not None
    return _IncludedRouteMatcher(route) if included and matches_by_itself(route) else route


class _MountedRouter:
    """The router inside a `Mount` or `Host`, whatever middlewares surround it."""

    def __init__(self, mount: Mount | Host) -> None:
        self._mount = mount
        self.redirect_slashes = redirects_slashes(getattr(mount, "_base_app", mount.app))

    @property
    def routes(self) -> Sequence[Any]:
        """The routes as they are now."""
        return self._mount.routes


class _IncludedRouteMatcher:
    """An included route with its own matching, asked as FastAPI asks it: with its prefix in the scope."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def matches(self, scope: Scope) -> tuple[Match, Any]:
        """Say whether the route serves a scope."""
        inner = {**scope.get("fastapi", {}), "effective_route_context": self._context}
        match: tuple[Match, Any] = self._context.original_route.matches({**scope, "fastapi": inner})
        return match
