"""The routes of an app, read once: which template and which decorators stand behind a request."""

import logging
import re
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, Final, Self

from starlette.routing import Host, Match, Mount, compile_path

from ratelimit.decorators import Declared, declared_on, without_effect
from ratelimit.errors import ConfigurationError
from ratelimit.http.route_tree import RouteTree
from ratelimit.plan import Endpoint, Plan

logger = logging.getLogger("ratelimit")

Scope = MutableMapping[str, Any]

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})
"""Methods that a counter may be named after even where the route did not declare them; all others share one."""

NOWHERE: Final = Endpoint()
"""What is below a `Mount` or `Host` that matched, where nothing else did: the framework looks no further."""

_NO_EFFECT: Final = (
    "has no effect: what is served is not what was decorated; let the decorators (or route class) between them use "
    "functools.wraps, or put @limit where the route is made"
)
_DEEPEST: Final = 16
_FRAMEWORKS: Final = ("starlette.routing", "fastapi.routing")


class Index:
    """The routes of one router and all below it, in the order in which the framework tries them.

    `volatile` says that more than type, method and path decide (hosts, and route classes with their own matching).
    A `bare` index only names templates: what decorators said is for the limiter of another app.
    """

    def __init__(
        self, router: Any, plan: Plan, prefix: str = "", host: str = "", depth: int = 0, *, bare: bool = False
    ) -> None:
        self._plan, self._prefix, self._host, self._depth, self._bare = plan, prefix, host, depth, bare
        self._redirects = bool(getattr(getattr(router, "router", router), "redirect_slashes", False))
        self._tree: RouteTree[_Leaf | _Branch] = RouteTree()
        self._read: list[tuple[Any, int]] = [(router, len(router.routes))]
        self.volatile = False
        self.leaves: list[_Leaf] = []
        for route in self._flat(router.routes):
            self._add(route)

    @classmethod
    def of(cls, router: Any, plan: Plan, *, bare: bool = False) -> Self:
        """Return the index of a whole app; a decorator that cannot work raises `ConfigurationError`."""
        index = cls(router, plan, bare=bare)
        if not bare:
            for leaf in index.leaves:
                leaf.check(plan)
            _check_effect(index.leaves)
        return index

    def endpoints(self) -> list[Endpoint]:
        """Return all endpoints that were made so far: those of the methods that routes declare."""
        return [endpoint for leaf in self.leaves for endpoint in leaf.made()]

    def is_stale(self) -> bool:
        """Say whether routes were added or removed since, here or below."""
        return any(len(router.routes) != number for router, number in self._read)

    def accept(self) -> None:
        """Take the routes as they are now for read, although they are not."""
        self._read = [(router, len(router.routes)) for router, _ in self._read]

    def search(self, scope: Scope, method: str) -> Endpoint | None:
        """Return the endpoint that would serve the scope, `NOWHERE`, or `None`."""
        found = self._match(scope, method)
        if found is None and self._redirects and scope["type"] == "http" and route_path(scope) != "/":
            path = scope["path"]
            found = self._match({**scope, "path": path.rstrip("/") if path.endswith("/") else path + "/"}, method)
        return found

    def _match(self, scope: Scope, method: str) -> Endpoint | None:
        partial: Endpoint | None = None
        for node in self._tree.candidates(route_path(scope)):
            try:
                match, child = node.matcher.matches(scope)
            except Exception:  # noqa: BLE001 - a convertor that fails here fails in the app too, which answers for it
                match, child = Match.FULL, {}
            if match is Match.NONE:
                continue
            if isinstance(node, _Branch):
                return node.below.search({**scope, **child}, method) or NOWHERE
            if match is Match.FULL:
                return node.of(self._plan, method)
            partial = partial or node.of(self._plan, method)
        return partial

    def _flat(self, routes: Sequence[Any]) -> Iterator[Any]:
        """Yield what matches by itself: FastAPI's included routers give way to the routes in them, with prefixes."""
        for route in routes:
            contexts = getattr(route, "effective_route_contexts", None)
            if contexts is None:
                yield route
            else:
                self._watch(route)
                yield from contexts()

    def _watch(self, included: Any) -> None:
        router = included.original_router
        self._read.append((router, len(router.routes)))
        for route in router.routes:
            if hasattr(route, "original_router"):
                self._watch(route)

    def _add(self, route: Any) -> None:
        # FastAPI's context of an included route shows some attributes only on an inner route.
        shown = getattr(route, "starlette_route", None) or route
        if isinstance(shown, Host):
            self._add_branch(route, shown, self._prefix, plain(shown.host))
        elif isinstance(shown, Mount):
            self._add_branch(route, shown, self._prefix + plain(shown.path), self._host)
        else:
            path = getattr(shown, "path", None) or f"/{type(shown).__name__}"
            methods = frozenset(getattr(shown, "methods", None) or ())
            endpoint = getattr(shown, "endpoint", None)
            endpoint = None if self._bare else endpoint
            leaf = _Leaf(_matcher(route), self._prefix + plain(path), self._host, endpoint, methods)
            self.leaves.append(leaf)
            self._put(route, shown, path, leaf)

    def _add_branch(self, route: Any, shown: Mount | Host, prefix: str, host: str) -> None:
        below = router_of(shown.app) if not shown.routes else _RoutesOf(shown)
        node: _Leaf | _Branch
        if below is not None and self._depth < _DEEPEST:
            index = Index(below, self._plan, prefix, host, self._depth + 1, bare=self._bare)
            self.volatile = self.volatile or index.volatile
            self._read += index._read
            self.leaves += index.leaves
            node = _Branch(_matcher(route), index)
        else:
            node = _Leaf(_matcher(route), f"{prefix}/{{path}}", host, shown.app, frozenset())
            self.leaves.append(node)
        self._put(route, shown, None if isinstance(shown, Host) else shown.path + "/{path:path}", node)

    def _put(self, route: Any, shown: Any, path: str | None, node: "_Leaf | _Branch") -> None:
        own = type(getattr(route, "original_route", route)).matches.__module__ not in _FRAMEWORKS
        if own or path is None or getattr(shown, "path_regex", None) != compile_path(path)[0]:
            self.volatile = True
            self._tree.add_anywhere(node)
        else:
            self._tree.add(path, shown.param_convertors, node)


class _Leaf:
    """A route that answers; makes its endpoint for each method the first time."""

    def __init__(self, matcher: Any, template: str, host: str, endpoint: Any, methods: frozenset[str]) -> None:
        self.matcher, self.endpoint, self.methods = matcher, endpoint, methods
        self.template, self._host = template.rstrip("/") or "/", host
        self._made: dict[str, Endpoint] = {}

    def of(self, plan: Plan, method: str) -> Endpoint:
        """Return the endpoint of this route and a method, always the same one."""
        method = method if method in METHODS or method in self.methods else "*"
        if method not in self._made:
            self._made[method] = plan.declare(method, self.template, host=self._host, said=self._said(method))
        return self._made[method]

    def made(self) -> list[Endpoint]:
        """Return the endpoints of this route that were made so far."""
        return list(self._made.values())

    def check(self, plan: Plan) -> None:
        """Make all endpoints that may carry a decorator, so that wrong ones fail now."""
        for method in self.methods | self.handlers().keys() | {"GET"}:
            self.of(plan, "GET" if method == "HEAD" else method)

    def handlers(self) -> dict[str, Any]:
        """Return the handlers of a class-based endpoint by method."""
        if not isinstance(self.endpoint, type):
            return {}
        found = {method: getattr(self.endpoint, method.lower(), None) for method in (*METHODS, "HEAD")}
        return {method: handler for method, handler in found.items() if handler is not None}

    def _said(self, method: str) -> Declared:
        whole, part = declared_on(self.endpoint), declared_on(self.handlers().get(method))
        return Declared((*whole.limits, *part.limits), whole.exempt or part.exempt, whole.named | part.named)


class _Branch:
    """A `Mount` or `Host`: once it matches, the request is for something below it."""

    def __init__(self, matcher: Any, below: Index) -> None:
        self.matcher, self.below = matcher, below


class _RoutesOf:
    """The router inside a `Mount` or `Host`, whatever middlewares stand around it."""

    def __init__(self, shown: Mount | Host) -> None:
        self._shown = shown
        inner = getattr(shown, "_base_app", shown.app)
        self.redirect_slashes = getattr(getattr(inner, "router", inner), "redirect_slashes", False)

    @property
    def routes(self) -> Sequence[Any]:
        """The routes as they are now."""
        return self._shown.routes


class _InContext:
    """An included route with its own matching, asked as FastAPI asks it: with its prefix in the scope."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def matches(self, scope: Scope) -> tuple[Match, Any]:
        """Say whether the route serves a scope."""
        told = {**scope.get("fastapi", {}), "effective_route_context": self._context}
        match: tuple[Match, Any] = self._context.original_route.matches({**scope, "fastapi": told})
        return match


def _matcher(route: Any) -> Any:
    original = getattr(route, "original_route", None)
    custom = original is not None and type(original).matches.__module__ not in _FRAMEWORKS
    return _InContext(route) if custom else route


def _check_effect(leaves: Sequence[_Leaf]) -> None:
    served = [each for leaf in leaves for each in (leaf.endpoint, *leaf.handlers().values())]
    for lost, certain in without_effect(served):
        name = getattr(lost, "__qualname__", type(lost).__qualname__)
        if certain:
            raise ConfigurationError(f"the limit on {name} {_NO_EFFECT}")
        logger.warning("the limit on %s probably %s", name, _NO_EFFECT)


def router_of(app: Any) -> Any:
    """Return what holds the routes at or below an ASGI app, following the `app` of middlewares, or `None`."""
    for _ in range(100):
        if app is None or isinstance(getattr(app, "routes", None), (list, tuple)):
            return app
        app = None if callable(getattr(type(app), "app", None)) else getattr(app, "app", None)
    return None


def plain(path: str) -> str:
    """Return a path without its convertors: `/runs/{id:int}` is `/runs/{id}`."""
    return re.sub(r"\{([a-zA-Z_][a-zA-Z0-9_]*):[^}]*\}", r"{\1}", path)


def route_path(scope: Scope) -> str:
    """Return the path of a scope below its `root_path`."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path
