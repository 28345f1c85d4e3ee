"""The endpoint matcher: finds the endpoint of a request before the app routes it."""

import logging
from dataclasses import replace
from typing import Any, Final

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.asgi.routing.framework import RoutePath, Scope, router_of
from ratelimit.asgi.routing.route_index import DEAD_END, NOT_ALLOWED, FoundRoute, RouteIndex
from ratelimit.asgi.routing.undeclared_methods import leads_directly
from ratelimit.errors import ConfigurationError
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.resolver import METHODS, PolicyResolver

logger = logging.getLogger("ratelimit")

MAX_CACHED_PATHS: Final = 4096
"""Paths whose endpoints are cached."""

_MAX_CACHED_LENGTH: Final = 256
"""Characters of method and path that are cached: callers choose them, but not how much memory they take."""


class EndpointMatcher:
    """Finds the endpoint of a request by the framework's own matching, and caches it.

    The routes of the app around or below the middleware are read once (again when their number changes). A path that no
    route matches is named by the first pattern of the settings that matches it, else `*`: all of those are one endpoint.
    """

    def __init__(self, app: Any, resolver: PolicyResolver) -> None:
        self._app, self._router = app, router_of(app)
        self._resolver = resolver
        self._indexes: dict[tuple[int, bool], tuple[Any, RouteIndex]] = {}
        self.cache: BoundedCache[tuple[str, str, str, str, int], FoundRoute] = BoundedCache(MAX_CACHED_PATHS)
        self._mounted: dict[tuple[Endpoint, Endpoint], Endpoint] = {}
        self._earlier: dict[tuple[int, bool], tuple[Any, RouteIndex]] = {}
        self._warned, self._generation = False, resolver.generation

    def find(self, scope: Scope) -> Endpoint:
        """Return the endpoint of an `http` or `websocket` scope, which is not changed; raises what `match` raises."""
        return self.match(scope)[0]

    def match(self, scope: Scope) -> FoundRoute:
        """Return the endpoint of an `http` or `websocket` scope and its path parameters; the scope is not changed.

        The first call reads the routes and raises `ConfigurationError` where a decorator cannot work.
        """
        if self._generation != self._resolver.generation:
            self._forget_all()
        router = self._router or router_of(scope.get("app"))
        routes = len(router.routes) if router is not None else 0
        key = (scope["type"], scope.get("method", "GET"), scope["path"], scope.get("root_path", ""), routes)
        found = self.cache.get(key)
        if found is None:
            found, is_lasting = self._search(RoutePath.of(scope), router)
            _, method, path, root_path, _ = key
            if is_lasting and len(method) + len(path) + len(root_path) <= _MAX_CACHED_LENGTH:
                self.cache[key] = found
        return found

    def read_routes(self, app: Any = None) -> RouteIndex | None:
        """Read the routes now, so that mistakes in them show at start; return `None` where no routes can be seen."""
        router = self._router or router_of(app)
        if router is None:
            self._warn_that_no_routes_are_visible()
            return None
        return self._index(router)

    def _forget_all(self) -> None:
        """Find all endpoints again: other settings hold."""
        self._generation = self._resolver.generation
        self.cache.clear()
        self._earlier, self._indexes, self._mounted = self._indexes, {}, {}

    def _search(self, route_path: RoutePath, router: Any) -> tuple[FoundRoute, bool]:
        """Return the endpoint with its path parameters, and whether the same path will always lead there."""
        found, is_lasting = self._look_up(router, route_path)
        scope = route_path.scope
        outer = scope.get("router")
        if "app_root_path" in scope and outer is not None and (router is None or outer.routes is not router.routes):
            # Below a Mount: the templates of the whole app tell two mounts of the same routes apart.
            outer_path = route_path.with_scope(root_path=scope["app_root_path"])
            named, always = self._look_up(outer, outer_path, bare=True)
            found, is_lasting = self._in_mount(found, named), is_lasting and always
        if found is not None:
            return found, is_lasting
        if router is None:
            self._warn_that_no_routes_are_visible()
        return (self._by_patterns(route_path), {}), False

    def _look_up(self, router: Any, route_path: RoutePath, *, bare: bool = False) -> tuple[FoundRoute | None, bool]:
        if router is None:
            return None, True
        index = self._index(router, bare=bare)
        # The framework's matching gets a copy of the scope.
        route_path = route_path.with_scope()
        found = index.search(route_path)
        if found in (None, DEAD_END) and index.is_stale():
            index = self._index(router, bare=bare)
            found = index.search(route_path)
        if found is NOT_ALLOWED and not index.is_current():
            found = index.search(route_path.uncertain())
        # A route that is added below, for another method, must not stay uncounted.
        is_lasting = not index.is_volatile and found is not NOT_ALLOWED
        return (None if found is DEAD_END else found), is_lasting

    def _in_mount(self, found: FoundRoute | None, named: FoundRoute | None) -> FoundRoute | None:
        """Return an endpoint of a mounted app, named by its template in the whole app."""
        if found is None or named is None:
            return found or named
        (inner, parameters), (outer, outer_parameters) = found, named
        mounted = self._mounted.get((inner, outer))
        if mounted is None:
            mounted = self._mounted[inner, outer] = replace(inner, full_template=outer.host + outer.template)
        return mounted, {**outer_parameters, **parameters}

    def _index(self, router: Any, *, bare: bool = False) -> RouteIndex:
        # The router is kept beside its index, so that its id() cannot come to mean another one.
        key = id(router), bare
        _, index = self._indexes.get(key, (None, None))
        if index is None:
            _, earlier = self._earlier.get(key, (None, None))
            index = self._read(router, bare=bare) if earlier is None else self._read_again(router, earlier, bare=bare)
            self._indexes[key] = router, index
        elif index.is_stale():
            index = self._read_again(router, index, bare=bare)
            self._indexes[key] = router, index
        return index

    def _read(self, router: Any, *, bare: bool) -> RouteIndex:
        return RouteIndex.of(router, self._resolver, bare=bare, is_direct=leads_directly(self._app))

    def _read_again(self, router: Any, old: RouteIndex, *, bare: bool) -> RouteIndex:
        try:
            return self._read(router, bare=bare)
        except ConfigurationError:
            logger.exception("routes were added whose limits cannot work; the limits of the routes before stay [RL211]")
            old.accept_changes()
            return old

    def _by_patterns(self, route_path: RoutePath) -> Endpoint:
        """Return the endpoint of a path that no route matches, by the patterns of the settings."""
        matched = self._resolver.matched_patterns(route_path.path)
        method = route_path.method if route_path.method in METHODS else "*"
        return self._resolver.endpoint(method, matched_patterns=matched)

    def _warn_that_no_routes_are_visible(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "RateLimitMiddleware sees no routes: decorators have no effect, and all paths that no setting names "
                "are one endpoint; add it with app.add_middleware, or give the middlewares between it and the app an "
                "attribute `app` [RL204]"
            )
