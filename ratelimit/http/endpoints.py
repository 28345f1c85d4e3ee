"""Which endpoint a request is for, known before the app routes it."""

import logging
from dataclasses import replace
from typing import Any, Final

from ratelimit.errors import ConfigurationError
from ratelimit.http.route_index import METHODS, NOWHERE, Index, Scope, route_path, router_of
from ratelimit.plan import Endpoint, Plan

logger = logging.getLogger("ratelimit")

_REMEMBERED: Final = 4096
_LONGEST: Final = 256
"""Characters of method and path that are remembered: callers choose them, but not how much memory they take."""


class Endpoints:
    """Finds the endpoint of a request by the framework's own matching, and remembers it.

    The routes of the app around or below the middleware are indexed once (again when their number changes). A path
    that no route matches is named by the first pattern of the settings that fits it, else `*`: all of those are one
    endpoint.
    """

    def __init__(self, app: Any, plan: Plan) -> None:
        self._router = router_of(app)
        self._plan = plan
        self._indexes: dict[tuple[int, bool], tuple[Any, Index]] = {}
        self._found: dict[tuple[str, str, str, str, int], Endpoint] = {}
        self._parts: dict[tuple[Endpoint, Endpoint], Endpoint] = {}
        self._blind = False

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
            if lasting and sum(map(len, key[1:4])) <= _LONGEST:
                if len(self._found) >= _REMEMBERED:
                    self._found.clear()
                self._found[key] = found
        return found

    def build(self, app: Any = None) -> Index | None:
        """Read the routes now, so that what is wrong with them shows at start; return `None` where there are none."""
        router = self._router or router_of(app)
        if router is None:
            self._warn_that_it_is_blind()
            return None
        return self._index(router)

    def _search(self, scope: Scope, router: Any, method: str) -> tuple[Endpoint, bool]:
        """Return the endpoint, and whether the same path will always lead there."""
        found, lasting = self._look_up(router, scope, method)
        whole = scope.get("router")
        if "app_root_path" in scope and whole is not None and (router is None or whole.routes is not router.routes):
            # Below a Mount: the templates of the whole app tell two mounts of the same routes apart.
            named, always = self._look_up(whole, {**scope, "root_path": scope["app_root_path"]}, method, bare=True)
            found, lasting = self._part_of(found, named), lasting and always
        if found is not None:
            return found, lasting
        if router is None:
            self._warn_that_it_is_blind()
        return self._by_patterns(scope), False

    def _look_up(self, router: Any, scope: Scope, method: str, *, bare: bool = False) -> tuple[Endpoint | None, bool]:
        if router is None:
            return None, True
        index = self._index(router, bare=bare)
        found = index.search(dict(scope), method)
        if found in (None, NOWHERE) and index.is_stale():
            index = self._index(router, bare=bare)
            found = index.search(dict(scope), method)
        return (None if found is NOWHERE else found), not index.volatile

    def _part_of(self, found: Endpoint | None, named: Endpoint | None) -> Endpoint | None:
        """Return an endpoint of a mounted app, named by its template in the whole app."""
        if found is None or named is None:
            return found or named
        part = self._parts.get((found, named))
        if part is None:
            part = self._parts[found, named] = replace(found, whole=named.host + named.template)
        return part

    def _index(self, router: Any, *, bare: bool = False) -> Index:
        # The router is kept beside its index, so that its id() cannot come to mean another one.
        known = self._indexes.get((id(router), bare))
        if known is None:
            known = self._indexes[id(router), bare] = (router, Index.of(router, self._plan, bare=bare))
        elif known[1].is_stale():
            known = self._indexes[id(router), bare] = (router, self._anew(router, known[1], bare=bare))
        return known[1]

    def _anew(self, router: Any, old: Index, *, bare: bool) -> Index:
        try:
            return Index.of(router, self._plan, bare=bare)
        except ConfigurationError:
            logger.exception("routes were added whose limits cannot work; those that were read before go on")
            old.accept()
            return old

    def _by_patterns(self, scope: Scope) -> Endpoint:
        path, method = route_path(scope), scope.get("method", "GET")
        fitting = tuple(pattern.text for pattern in self._plan.patterns if pattern(path))
        return self._plan.endpoint(method if method in METHODS or method == "HEAD" else "*", fitting=fitting)

    def _warn_that_it_is_blind(self) -> None:
        if not self._blind:
            self._blind = True
            logger.warning(
                "no routes can be seen from RateLimitMiddleware: decorators have no effect and all paths that no "
                "setting names are one endpoint; add it with app.add_middleware, or give the middlewares between "
                "it and the app an attribute `app`"
            )
