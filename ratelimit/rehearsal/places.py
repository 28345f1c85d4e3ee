"""Places of a log: which endpoint a method and a path mean, by the app's own routes or by templates."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.config.path_pattern import strip_convertors
from ratelimit.resolver.endpoint import UNMATCHED, Endpoint
from ratelimit.resolver.endpoint_policies import EndpointPolicies
from ratelimit.resolver.resolver import METHODS, PolicyResolver

_PARAMETER: Final = re.compile(r"\\\{[^}]*\\\}")
_MAX_CACHED: Final = 100_000


class LogPlaces:
    """Finds endpoints as the running app would: by its routes where there is an app, else by `routes`, templates.

    A path that none of them matches is one of the unknown ones, as a path without a route is for the middleware; so are all paths
    where there are neither. `unknown` counts those requests.
    """

    def __init__(self, resolver: PolicyResolver, app: Any = None, routes: Sequence[str] = ()) -> None:
        self._resolver = resolver
        self._find = self._by_app(app) if app is not None else self._by_templates(routes)
        self._cache: dict[tuple[str, str], tuple[Endpoint, EndpointPolicies]] = {}
        self.unknown = 0

    def find(self, method: str, path: str) -> tuple[Endpoint, EndpointPolicies]:
        """Return the endpoint of a request, and what holds there."""
        found = self._cache.get((method, path))
        if found is None:
            endpoint = self._find(method, path)
            found = endpoint, self._resolver.policies_at(endpoint)
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[method, path] = found
        if found[0].template == UNMATCHED:
            self.unknown += 1
        return found

    def _by_app(self, app: Any) -> Callable[[str, str], Endpoint]:
        matcher = EndpointMatcher(app, self._resolver)
        matcher.read_routes()

        def find(method: str, path: str) -> Endpoint:
            scope = {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}
            return matcher.find(scope)

        return find

    def _by_templates(self, routes: Sequence[str]) -> Callable[[str, str], Endpoint]:
        patterns = [(strip_convertors(route), _pattern(route)) for route in routes]

        def find(method: str, path: str) -> Endpoint:
            for template, pattern in patterns:
                if pattern.fullmatch(path):
                    return self._resolver.endpoint(method, template)
            method = method if method in METHODS else "*"
            return self._resolver.endpoint(method, matched_patterns=self._resolver.matched_patterns(path))

        return find


def _pattern(template: str) -> "re.Pattern[str]":
    """Return the paths of a template: a parameter is one segment, one of the kind `path` and `*` are anything."""
    text = _PARAMETER.sub(lambda found: ".*" if found[0].endswith(r":path\}") else "[^/]+", re.escape(template))
    return re.compile(text.replace(r"\*", ".*"))
