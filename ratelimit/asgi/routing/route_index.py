"""The routes of an app, read once: which endpoint a route path leads to."""

import logging
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Self

from starlette.routing import Host, Match, Mount, compile_path

from ratelimit.asgi.decorators import EndpointLimit
from ratelimit.asgi.routing.framework import (
    RoutePath,
    Scope,
    dependency_calls,
    flat_routes,
    included_routers,
    matcher_of,
    matches_by_itself,
    redirects_slashes,
    router_below,
    visible_route,
)
from ratelimit.asgi.routing.lost_decorators import find_lost_decorators
from ratelimit.asgi.routing.route_trie import RouteTrie
from ratelimit.asgi.routing.undeclared_methods import include_directly, leads_directly, rejects_method
from ratelimit.config.declarations import EndpointDeclaration, declaration_of, name_of
from ratelimit.config.path_pattern import strip_convertors
from ratelimit.errors import ConfigurationError
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.endpoint_policies import EndpointPolicies
from ratelimit.resolver.resolver import METHODS, PolicyResolver

logger = logging.getLogger("ratelimit")

FoundRoute = tuple[Endpoint, Mapping[str, Any]]
"""An endpoint, and the parameters in the path of a request to it."""

DEAD_END: Final[FoundRoute] = Endpoint(), {}
"""The result below a `Mount` or `Host` that matched, where no route in it did: the framework looks no further."""

NOT_ALLOWED: Final[FoundRoute] = Endpoint(exempt=True), {}
"""The result where the path is served and its method is not: the framework answers 405, and nothing is charged."""

_NO_EFFECT: Final = (
    "has no effect: the served function is not the decorated one; use functools.wraps in the decorators (or the route "
    "class) between them, or put @limit where the route is made"
)
_MAX_DEPTH: Final = 16


class RouteIndex:
    """The routes of one router and all below it, in the order in which the framework tries them.

    `is_volatile` says that more than type, method and path decide (hosts, and route classes with their own matching).
    A `bare` index only names templates, since the decorators belong to the limiter of another app. `is_direct` says that
    requests reach the router as the limiter sees them.
    """

    def __init__(
        self,
        router: Any,
        resolver: PolicyResolver,
        prefix: str = "",
        host: str = "",
        depth: int = 0,
        *,
        bare: bool = False,
        is_direct: bool = False,
    ) -> None:
        self._resolver, self._prefix, self._host, self._depth, self._bare = resolver, prefix, host, depth, bare
        self._redirects = redirects_slashes(router)
        self._trie: RouteTrie[_RouteEntry | _MountEntry] = RouteTrie()
        included = [*included_routers(router.routes)]
        self._is_direct = is_direct and not bare and include_directly(included)
        read = [router, *included]
        self._read: list[tuple[Any, int, list[Any]]] = [(each, len(each.routes), [*each.routes]) for each in read]
        self.is_volatile = False
        self._entries: list[_RouteEntry] = []
        for route in flat_routes(router.routes):
            self._add(route)

    @classmethod
    def of(cls, router: Any, resolver: PolicyResolver, *, bare: bool = False, is_direct: bool = False) -> Self:
        """Return the index of a whole app; a decorator that cannot work raises `ConfigurationError`."""
        index = cls(router, resolver, bare=bare, is_direct=is_direct)
        if not bare:
            for entry in index._entries:
                entry.register_all(resolver)
            _check_effect(index._entries)
        return index

    def endpoints(self) -> list[Endpoint]:
        """Return all endpoints that were registered so far: those of the methods that routes declare."""
        return [endpoint for entry in self._entries for endpoint in entry.endpoints()]

    def policies_by_operation(self) -> dict[tuple[str, str], list[EndpointPolicies]]:
        """Return what holds at each method and template that routes declare, of the first route that serves it."""
        found: dict[tuple[str, str], list[EndpointPolicies]] = {}
        for entry in self._entries:
            for method in entry.methods:
                if (key := (method, entry.template)) not in found:
                    found[key] = [*map(self._resolver.policies_at, entry.possible_endpoints(self._resolver, method))]
        return found

    @property
    def takes_any_path(self) -> bool:
        """Whether a route serves any path, as those of proxies and gateways do."""
        return any(entry.takes_any_path for entry in self._entries)

    def is_stale(self) -> bool:
        """Say whether routes were added or removed since, here or below."""
        return any(len(router.routes) != number for router, number, _ in self._read)

    def is_current(self) -> bool:
        """Say whether these are the very routes that the app has now, which takes longer to find out."""
        return all([*router.routes] == routes for router, _, routes in self._read)

    def accept_changes(self) -> None:
        """Treat the routes as read as they are now, although they were not read again."""
        self._read = [(router, len(router.routes), routes) for router, _, routes in self._read]

    def search(self, route_path: RoutePath) -> FoundRoute | None:
        """Return the endpoint that would serve the path, with its parameters; `NOT_ALLOWED`, `DEAD_END`, or `None`."""
        found = self._match(route_path)
        if found is None and self._redirects:
            redirected = route_path.with_other_slash()
            found = None if redirected is None else self._match(redirected)
        return found

    def _match(self, route_path: RoutePath) -> FoundRoute | None:
        partial: tuple[_RouteEntry, Mapping[str, Any]] | None = None
        for entry in self._trie.candidates(route_path.path):
            try:
                match, changes = entry.matcher.matches(route_path.scope)
            except Exception:  # noqa: BLE001 - a convertor that fails here fails in the app too, which answers for it
                match, changes, route_path = Match.FULL, {}, route_path.uncertain()
            if match is Match.NONE:
                continue
            if isinstance(entry, _MountEntry):
                return entry.index.search(route_path.with_scope(**changes)) or DEAD_END
            parameters = changes.get("path_params") or {}
            if match is Match.FULL:
                return self._found(entry, parameters, route_path, match)
            partial = partial or (entry, parameters)
        return None if partial is None else self._found(*partial, route_path, Match.PARTIAL)

    def _found(
        self, entry: "_RouteEntry", parameters: Mapping[str, Any], route_path: RoutePath, match: Match
    ) -> FoundRoute:
        if self._is_direct and route_path.is_certain and entry.rejects(route_path.scope, match):
            return NOT_ALLOWED
        return entry.endpoint_at(self._resolver, route_path, self._prefix), parameters

    def _add(self, route: Any) -> None:
        visible = visible_route(route)
        if isinstance(visible, Host):
            self._add_mount(route, visible, self._prefix, strip_convertors(visible.host))
        elif isinstance(visible, Mount):
            self._add_mount(route, visible, self._prefix + strip_convertors(visible.path), self._host)
        else:
            path = getattr(visible, "path", None) or f"/{type(visible).__name__}"
            methods = frozenset(getattr(visible, "methods", None) or ())
            handler = None if self._bare else getattr(visible, "endpoint", None)
            template = self._prefix + strip_convertors(path)
            entry = _RouteEntry(matcher_of(route), template, self._host, handler, methods)
            entry.route = route
            entry.takes_any_path = path.endswith(":path}")
            if not self._bare:
                entry.dependencies = _dependency_limits(visible)
            self._entries.append(entry)
            self._put(route, visible, path, entry)

    def _add_mount(self, route: Any, mount: Mount | Host, prefix: str, host: str) -> None:
        below = router_below(mount)
        entry: _RouteEntry | _MountEntry
        if below is not None and self._depth < _MAX_DEPTH:
            is_direct = self._is_direct and leads_directly(mount.app)
            index = RouteIndex(
                below, self._resolver, prefix, host, self._depth + 1, bare=self._bare, is_direct=is_direct
            )
            self.is_volatile = self.is_volatile or index.is_volatile
            self._read += index._read
            self._entries += index._entries
            entry = _MountEntry(matcher_of(route), index)
        else:
            entry = _RouteEntry(matcher_of(route), f"{prefix}/{{path}}", host, mount.app, frozenset())
            entry.takes_any_path = True
            self._entries.append(entry)
        self._put(route, mount, None if isinstance(mount, Host) else mount.path + "/{path:path}", entry)

    def _put(self, route: Any, visible: Any, path: str | None, entry: "_RouteEntry | _MountEntry") -> None:
        unusual = path is None or getattr(visible, "path_regex", None) != compile_path(path)[0]
        if path is None or unusual or matches_by_itself(route):
            self.is_volatile = True
            self._trie.add_anywhere(entry)
        else:
            self._trie.add(path, visible.param_convertors, entry)


class _RouteEntry:
    """A route that answers; registers an endpoint for each method when it is asked for first."""

    def __init__(self, matcher: Any, template: str, host: str, handler: Any, methods: frozenset[str]) -> None:
        self.matcher, self.handler, self.methods = matcher, handler, methods
        self.template, self._host = template.rstrip("/") or "/", host
        self.dependencies: Sequence[EndpointLimit] = ()
        self.takes_any_path = False
        self.route: Any = None
        self._endpoints: dict[str, Endpoint] = {}
        self._by_patterns: dict[tuple[Endpoint, tuple[str, ...]], Endpoint] = {}

    def endpoint_at(self, resolver: PolicyResolver, route_path: RoutePath, prefix: str) -> Endpoint:
        """Return the endpoint of a request; a route for any path is what the patterns of the settings make of the path."""
        found = self.endpoint_for(resolver, route_path.method)
        matched = resolver.matched_patterns(_resolved(prefix + route_path.path)) if self.takes_any_path else ()
        return self._matched_by(matched, found)

    def possible_endpoints(self, resolver: PolicyResolver, method: str) -> list[Endpoint]:
        """Return the endpoint of a method; of a route for any path, one for each pattern that may match below it too."""
        found = self.endpoint_for(resolver, "GET" if method == "HEAD" else method)
        head = self.template.partition("{")[0]
        below = [each.text for each in resolver.patterns if self.takes_any_path and each.may_match_below(head)]
        return [found, *(self._matched_by((text,), found) for text in dict.fromkeys(below))]

    def _matched_by(self, matched: tuple[str, ...], found: Endpoint) -> Endpoint:
        if not matched:
            return found
        key = found, matched
        if key not in self._by_patterns:
            self._by_patterns[key] = replace(found, matched_patterns=matched)
        return self._by_patterns[key]

    def endpoint_for(self, resolver: PolicyResolver, method: str) -> Endpoint:
        """Return the endpoint of this route and a method, the same one at each call."""
        method = method if method in METHODS or method in self.methods else "*"
        if method not in self._endpoints:
            self._endpoints[method] = resolver.register_endpoint(
                method, self.template, host=self._host, declaration=self._declaration(method)
            )
        return self._endpoints[method]

    def rejects(self, scope: Scope, match: Match) -> bool:
        """Say whether the framework answers 405 to a request that this route has matched so."""
        return rejects_method(self.route, scope.get("method", ""), match)

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints of this route that were registered so far."""
        return list(self._endpoints.values())

    def register_all(self, resolver: PolicyResolver) -> None:
        """Register all endpoints that may carry a decorator, so that a wrong one fails now."""
        for method in (self.methods | self.method_handlers().keys()) or {"GET"}:
            self.endpoint_for(resolver, "GET" if method == "HEAD" else method)

    def method_handlers(self) -> dict[str, Any]:
        """Return the handlers of a class-based endpoint by method."""
        if not isinstance(self.handler, type):
            return {}
        found = {method: getattr(self.handler, method.lower(), None) for method in (*METHODS, "HEAD")}
        return {method: handler for method, handler in found.items() if handler is not None}

    def _declaration(self, method: str) -> EndpointDeclaration:
        declared = declaration_of(self.handler).merged(declaration_of(self.method_handlers().get(method)))
        name = name_of(self.handler)
        for dependency in reversed(self.dependencies):
            declared = dependency.declaration_for(name).merged(declared)
        return declared


class _MountEntry:
    """A `Mount` or `Host`: once it matches, the request is for something below it."""

    def __init__(self, matcher: Any, index: RouteIndex) -> None:
        self.matcher, self.index = matcher, index


def _resolved(path: str) -> str:
    """Return a path without dot segments and doubled slashes (RFC 3986 §5.2.4), as what is behind a gateway reads it."""
    resolved = posixpath.normpath("/" + path.lstrip("/"))
    return resolved + "/" if path.endswith("/") and resolved != "/" else resolved


def _dependency_limits(route: Any) -> list[EndpointLimit]:
    """Return the limits that a route depends on, each once, as FastAPI calls a dependency once for a request."""
    found = list(dict.fromkeys(call for call in dependency_calls(route) if isinstance(call, EndpointLimit)))
    for limit in found:
        limit.is_seen = True
    return found


def _check_effect(entries: Sequence[_RouteEntry]) -> None:
    served = [each for entry in entries for each in (entry.handler, *entry.method_handlers().values())]
    for lost, is_certain in find_lost_decorators(served):
        name = getattr(lost, "__qualname__", type(lost).__qualname__)
        if is_certain:
            raise ConfigurationError(f"the limit on {name} {_NO_EFFECT} [RL204]")
        logger.warning("the limit on %s probably %s [RL204]", name, _NO_EFFECT)
