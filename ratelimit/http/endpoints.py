"""Which endpoint a request is for, known before the app routes it."""

import re
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, Final

from starlette.routing import BaseRoute, Host, Match, Mount, Route, WebSocketRoute

from ratelimit.decorators import Declared, declared_on, hidden_behind
from ratelimit.errors import ConfigurationError
from ratelimit.http.route_tree import RouteTree
from ratelimit.plan import UNKNOWN, Endpoint, Plan

Scope = MutableMapping[str, Any]

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})
"""Methods that a counter may be named after even where the route did not declare them; all others share one."""

_REMEMBERED: Final = 4096
_DEEPEST: Final = 16
_CONVERTOR: Final = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*):[^}]*\}")


class Endpoints:
    """Finds the endpoint of a request by the framework's own matching, and remembers it.

    The routes of the app around or below the middleware are indexed once (again when their number changes). A path
    that no route matches is the first pattern of the settings that fits it, else `*`: all of them are one endpoint.
    """

    def __init__(self, app: Any, plan: Plan) -> None:
        self._router = router_of(app)
        self._plan = plan
        self._indexes: dict[int, tuple[Any, int, _Index]] = {}
        self._found: dict[tuple[str, str, str, str, int], Endpoint] = {}

    def find(self, scope: Scope) -> Endpoint:
        """Return the endpoint of an `http` or `websocket` scope, which is not changed.

        The first call reads the routes and raises `ConfigurationError` where a decorator cannot work.
        """
        router = self._router or router_of(scope.get("app"))
        routes = len(router.routes) if router is not None else 0
        method = scope.get("method", "GET")
        key = (scope["type"], method, scope["path"], scope.get("root_path", ""), routes)
        found = self._found.get(key)
        if found is None:
            found, lasting = self._search(scope, router, "GET" if method == "HEAD" else method)
            if lasting:
                if len(self._found) >= _REMEMBERED:
                    self._found.clear()
                self._found[key] = found
        return found

    def build(self, app: Any = None) -> None:
        """Read the routes now, so that what is wrong with them shows at start."""
        router = self._router or router_of(app)
        if router is not None:
            self._index(router)

    def _search(self, scope: Scope, router: Any, method: str) -> tuple[Endpoint, bool]:
        lasting = True
        for candidate, view in self._views(scope, router):
            index = self._index(candidate)
            lasting = lasting and not index.volatile
            found = index.search(dict(view), method)
            if found is not None:
                return found, lasting
        return self._by_pattern(scope), lasting

    def _views(self, scope: Scope, router: Any) -> Iterator[tuple[Any, Scope]]:
        # Below a Mount, the templates of the whole app tell two mounts of the same routes apart.
        whole = router_of(scope.get("app"))
        apart = whole is not None and (router is None or whole.routes is not router.routes)
        if apart and "app_root_path" in scope:
            yield whole, {**scope, "root_path": scope["app_root_path"]}
        if router is not None:
            yield router, scope

    def _index(self, router: Any) -> "_Index":
        # The router is kept beside its index, so that its id() cannot come to mean another one.
        known = self._indexes.get(id(router))
        if known is None or known[1] != len(router.routes):
            index = _Index(router, self._plan)
            _check_hidden(index.leaves)
            known = self._indexes[id(router)] = (router, len(router.routes), index)
        return known[2]

    def _by_pattern(self, scope: Scope) -> Endpoint:
        path, method = _route_path(scope), scope.get("method", "GET")
        fitting = (pattern.pattern for pattern in self._plan.patterns if pattern(path))
        template = next(fitting, UNKNOWN)
        return self._plan.endpoint(method if method in METHODS or method == "HEAD" else "*", template)


def router_of(app: Any) -> Any:
    """Return what holds the routes at or below an ASGI app, following the `app` of middlewares, or `None`."""
    for _ in range(100):
        if app is None or isinstance(getattr(app, "routes", None), (list, tuple)):
            return app
        app = None if callable(getattr(type(app), "app", None)) else getattr(app, "app", None)
    return None


class _Leaf:
    """A route that answers; makes its endpoint for each method the first time."""

    def __init__(self, matcher: Any, template: str, host: str, endpoint: Any, methods: Sequence[str]) -> None:
        self.matcher, self.endpoint = matcher, endpoint
        self.template, self._host = template.rstrip("/") or "/", host
        self._methods = frozenset(methods)
        self._made: dict[str, Endpoint] = {}

    def of(self, plan: Plan, method: str) -> Endpoint:
        method = method if method in METHODS or method in self._methods else "*"
        if method not in self._made:
            said = self._said(method)
            self._made[method] = plan.declare(method, self.template, host=self._host, said=said)
        return self._made[method]

    def check(self, plan: Plan) -> None:
        """Make the endpoints that are certain to be asked for, so that wrong decorators fail now."""
        for method in {"GET" if m == "HEAD" else m for m in self._methods} or {"GET", "POST"}:
            self.of(plan, method)

    def _said(self, method: str) -> Declared:
        whole = declared_on(self.endpoint)
        handler = getattr(self.endpoint, method.lower(), None) if isinstance(self.endpoint, type) else None
        part = declared_on(handler)
        return Declared((*whole.limits, *part.limits), whole.exempt or part.exempt, whole.named | part.named)


class _Branch:
    """A `Mount` or `Host`: once it matches, the request is for something below it."""

    def __init__(self, matcher: Any, below: "_Index") -> None:
        self.matcher, self.below = matcher, below


class _Index:
    """The routes of one router and all below it, in the order in which the framework tries them."""

    def __init__(self, router: Any, plan: Plan, prefix: str = "", host: str = "", depth: int = 0) -> None:
        self._plan, self._prefix, self._host, self._depth = plan, prefix, host, depth
        self._redirects = bool(getattr(getattr(router, "router", router), "redirect_slashes", False))
        self._tree: RouteTree[_Leaf | _Branch] = RouteTree()
        self.volatile = False
        self.leaves: list[_Leaf] = []
        for route in _flat(router.routes):
            self._add(route)

    def search(self, scope: Scope, method: str) -> Endpoint | None:
        """Return the endpoint that would serve the scope, or `None`."""
        found = self._match(scope, method)
        if found is None and self._redirects and scope["type"] == "http" and _route_path(scope) != "/":
            path = scope["path"]
            found = self._match({**scope, "path": path.rstrip("/") if path.endswith("/") else path + "/"}, method)
        return found

    def _match(self, scope: Scope, method: str) -> Endpoint | None:
        partial: Endpoint | None = None
        for node in self._tree.candidates(_route_path(scope)):
            match, child = node.matcher.matches(scope)
            if match is Match.NONE:
                continue
            if isinstance(node, _Branch):
                return node.below.search({**scope, **child}, method)
            if match is Match.FULL:
                return node.of(self._plan, method)
            partial = partial or node.of(self._plan, method)
        return partial

    def _add(self, route: Any) -> None:
        # FastAPI's context of an included route matches by itself, but shows some attributes only on an inner route.
        shown = getattr(route, "starlette_route", None) or route
        if isinstance(shown, (Mount, Host)):
            self._add_branch(route, shown)
            return
        path = getattr(shown, "path_format", None) or getattr(shown, "path", None) or f"/{type(shown).__name__}"
        leaf = _Leaf(
            route,
            self._prefix + path,
            self._host,
            getattr(shown, "endpoint", None),
            tuple(getattr(shown, "methods", None) or ()),
        )
        leaf.check(self._plan)
        self.leaves.append(leaf)
        if _matches_by_path(route, shown):
            self._tree.add(shown.path, shown.param_convertors, leaf)
        else:
            self.volatile = True
            self._tree.add_anywhere(leaf)

    def _add_branch(self, route: Any, shown: Mount | Host) -> None:
        if isinstance(shown, Host):
            self.volatile = True
            prefix, host = self._prefix, _plain(shown.host)
        else:
            prefix, host = self._prefix + _plain(shown.path), self._host
        below = router_of(shown.app) if not shown.routes else _RoutesOf(shown)
        node: _Leaf | _Branch
        if below is not None and self._depth < _DEEPEST:
            index = _Index(below, self._plan, prefix, host, self._depth + 1)
            self.volatile = self.volatile or index.volatile
            self.leaves += index.leaves
            node = _Branch(route, index)
        else:
            node = _Leaf(route, f"{prefix}/{{path}}", host, shown.app, ())
        if isinstance(shown, Host):
            self._tree.add_anywhere(node)
        else:
            self._tree.add(shown.path + "/{path:path}", shown.param_convertors, node)


class _RoutesOf:
    """The router inside a `Mount` or `Host`, whatever middlewares stand around it."""

    def __init__(self, shown: Mount | Host) -> None:
        self.routes = shown.routes
        inner = getattr(shown, "_base_app", shown.app)
        self.redirect_slashes = getattr(getattr(inner, "router", inner), "redirect_slashes", False)


def _check_hidden(leaves: Sequence[_Leaf]) -> None:
    served = [leaf.endpoint for leaf in leaves]
    for leaf in leaves:
        for inner in hidden_behind(leaf.endpoint):
            # An endpoint may well call another one; only what is served nowhere has lost its limit.
            if not any(inner is each for each in served):
                raise ConfigurationError(
                    f"the limit on {inner.__qualname__} is hidden by another decorator at {leaf.template!r}: "
                    f"let that decorator use functools.wraps, or put @limit above it"
                )


def _flat(routes: Sequence[BaseRoute]) -> Iterator[Any]:
    """Yield what matches by itself: FastAPI's included routers give way to the routes in them, prefixes applied."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            yield from contexts()


def _matches_by_path(route: Any, shown: Any) -> bool:
    """Say whether the route matches by type, path and method alone, as the framework's own routes do."""
    if route is not shown or not isinstance(route, BaseRoute):
        return hasattr(shown, "path_regex")
    own = type(route).matches
    framework = own in (Route.matches, WebSocketRoute.matches) or own.__module__ == "fastapi.routing"
    return framework and hasattr(route, "path_regex")


def _plain(path: str) -> str:
    """Return a path without its convertors: `/runs/{id:int}` is `/runs/{id}`."""
    return _CONVERTOR.sub(r"{\1}", path)


def _route_path(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path
