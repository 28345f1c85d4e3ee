"""Startup checks: raise for arguments that are wrong, and warn once about settings that can never apply."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_network
from typing import Final

from ratelimit._utils.sibling_processes import worker_count
from ratelimit.asgi.identify import UNIX
from ratelimit.asgi.identity_cache import NO_IDENTIFY, IdentityCache
from ratelimit.asgi.routing.route_index import RouteIndex
from ratelimit.config.path_pattern import EXCEPT, PathPattern
from ratelimit.config.policies import Policy
from ratelimit.config.settings import RateLimitSettings, split_entry
from ratelimit.enforcement.listeners import Listener
from ratelimit.errors import ConfigurationError
from ratelimit.limiter import Limiter
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.resolver import METHODS

_SAME_IMPORT_NAME: Final = ("ratelimit", "asgi-ratelimit")
"""Distributions of others whose import package is called `ratelimit` too."""


def check_arguments(settings: object, limiter: object, listeners: Sequence[Listener]) -> None:
    """Raise `ConfigurationError` for arguments of the middleware that do not go together, or are of another type."""
    if limiter is not None and listeners:
        raise ConfigurationError(
            "RateLimitMiddleware: hand the listeners to the limiter: Limiter(settings, listeners=…) [RL206]"
        )
    if settings is not None and limiter is not None:
        raise ConfigurationError("RateLimitMiddleware takes settings or a limiter, not both [RL206]")
    for name, value, kind in (("settings", settings, RateLimitSettings), ("limiter", limiter, Limiter)):
        if value is not None and not isinstance(value, kind):
            raise ConfigurationError(
                f"RateLimitMiddleware: {name} must be a {kind.__name__}, not {value!r:.100} [RL206]"
            )


def check_identify(identify: object) -> None:
    """Raise `ConfigurationError` for an `identify` that cannot be called with a connection alone."""
    if identify is None:
        return
    if not callable(identify):
        raise ConfigurationError(f"identify: must be a function of the connection, not {identify!r:.100} [RL207]")
    if isinstance(identify, IdentityCache):
        if not identify.has_identify:
            raise ConfigurationError(NO_IDENTIFY)
    else:
        with suppress(ValueError):  # Some callables have no signature.
            try:
                inspect.signature(identify).bind(None)
            except TypeError:
                raise ConfigurationError(
                    "identify: must be a function that takes the connection and nothing else [RL207]"
                ) from None


def log_startup_warnings(limiter: Limiter, index: RouteIndex | None, *, has_own_identify: bool) -> None:
    """Log a warning for each setting that is valid and has no effect, once for each limiter."""
    for warning in startup_warnings(limiter.settings, index, has_own_identify=has_own_identify):
        limiter.observer.warn_once(warning)


def startup_warnings(settings: RateLimitSettings, index: RouteIndex | None, *, has_own_identify: bool) -> Iterable[str]:
    """Return a message for each setting that is valid and has no effect; `index` are the routes, where they are known."""
    endpoints = [] if index is None else index.endpoints()
    declared = [limit for endpoint in endpoints for limit in endpoint.limits]
    warnings = [*_shared_quotas(settings), *_deployment(settings)]
    if not has_own_identify:
        warnings += _unverified([*settings.policies, *declared])
        warnings += _without_identity([*settings.policies, *declared], settings.dimension_sources)
    if index is not None:
        warnings += _without_limits(settings, declared)
        if not index.takes_any_path:
            warnings += _without_route(settings, endpoints)
        warnings += _without_parameter(settings, endpoints)
    return dict.fromkeys(warnings)


def _deployment(settings: RateLimitSettings) -> Iterator[str]:
    if settings.store.startswith("memory:") and (workers := worker_count()) > 1:
        yield (
            f"memory:// counts in each process alone, and this is one of {workers} workers: callers get up to {workers} times "
            "their limits; count in Redis [RL213]"
        )
    for network in settings.trusted_proxies:
        if network != UNIX and ip_network(network).prefixlen == 0:
            yield f"trusted_proxies: {network!r} trusts everybody: any client may choose its own address [RL212]"
    for name in _SAME_IMPORT_NAME:
        if _is_installed(name):
            yield (
                f"the distribution {name!r} is installed too and has an import package `ratelimit`: whichever is "
                f"installed later overwrites files of the other; pip uninstall {name} ratelimit-asgi, and install "
                "ratelimit-asgi again [RL214]"
            )


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _unverified(policies: Sequence[Policy]) -> Iterator[str]:
    if any("token" in policy.per for policy in policies) and not any("ip" in policy.per for policy in policies):
        yield (
            "the default identify verifies nothing, so each invented token is a caller with limits of its own, and without "
            "one no limit by token applies: hand in an identify, or add a limit by ip [RL215]"
        )


def _shared_quotas(settings: RateLimitSettings) -> Iterator[str]:
    for quota in settings.quotas:
        if not quota.per and quota.key is None:
            yield f"quota {quota.name!r} is shared by all callers, since per is empty: it is answered as capacity [RL601]"


def _without_identity(policies: Sequence[Policy], sources: Iterable[str]) -> Iterator[str]:
    for policy in policies:
        if policy.manual:
            continue
        if unknown := sorted({*policy.per} - {"token", "ip", "endpoint", "method", *sources}):
            names = ", ".join(unknown)
            yield f"{policy.kind} {policy.name!r} never applies: no identity has {names}; hand in an identify that does [RL602]"


def _without_route(settings: RateLimitSettings, endpoints: list[Endpoint]) -> Iterator[str]:
    for entry in settings.exempt:
        method, path = split_entry(entry)
        if not any(each.fits(PathPattern(path)) and method in (None, each.method) for each in endpoints):
            yield f"exempt {entry!r} matches no route [RL603]"
    for response in settings.path_responses:
        for path in response.paths:
            if not any(each.fits(PathPattern(path)) for each in endpoints):
                yield f"responses: {path!r} matches no route [RL604]"
    for policy in settings.policies:
        yield from _policy_without_route(policy, endpoints)


def _without_parameter(settings: RateLimitSettings, endpoints: list[Endpoint]) -> Iterator[str]:
    declared = [limit for endpoint in endpoints for limit in endpoint.limits]
    sources = {f"dimension {name!r}": source for name, source in settings.dimension_sources.items()}
    sources |= {f"key of {each.name!r}": each.key for each in (*settings.policies, *declared) if each.key is not None}
    for name, source in sources.items():
        if isinstance(source, str) and source.startswith("path:"):
            parameter = f"{{{source.removeprefix('path:')}}}"
            if not any(parameter in endpoint.host + endpoint.template for endpoint in endpoints):
                yield f"{name} is never known: no route has a parameter {parameter} [RL607]"


def _policy_without_route(policy: Policy, endpoints: list[Endpoint]) -> Iterator[str]:
    for path in policy.paths:
        if not any(each.fits(PathPattern(path.removeprefix(EXCEPT))) for each in endpoints):
            yield f"{policy.kind} {policy.name!r}: path {path!r} matches no route; write it like the route's own path [RL605]"
    for method in policy.methods:
        if method not in METHODS and not any(each.method == method for each in endpoints):
            yield f"{policy.kind} {policy.name!r}: no route has the method {method} [RL606]"


def _without_limits(settings: RateLimitSettings, declared: Sequence[Policy]) -> Iterator[str]:
    if not declared and all(policy.manual for policy in settings.policies):
        yield "no request is limited: the settings have no limits and the routes no decorators [RL608]"
