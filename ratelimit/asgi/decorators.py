"""The decorators `limit` and `exempt`: limits that are declared on an endpoint itself."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack

from pydantic import ValidationError
from starlette.routing import BaseRoute

from ratelimit.asgi.routing.lost_decorators import remember_decorated
from ratelimit.config.declarations import ATTRIBUTE, EndpointDeclaration, declaration_of
from ratelimit.config.policies import Limit, LimitOptions
from ratelimit.errors import ConfigurationError
from ratelimit.model.rate import Rate

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def limit(
    rate: str | Rate,
    *,
    per: str | Sequence[str] = (),
    name: str | None = None,
    **options: Unpack[LimitOptions],
) -> Callable[[Endpoint], Endpoint]:
    """Give the endpoint a limit of its own, of scope `endpoint`, counted apart for each value of `per`.

    Works on functions (sync and async), methods of class-based endpoints and whole classes, above or below the route
    decorator, and may be used several times. The endpoint stays as it is: it needs no `request` parameter. It is
    charged by `RateLimitMiddleware`, together with the limits of the settings. `options` are the other fields of
    `Limit` (`burst`, `plans`, `cost`, `shadow`, …). A wrong value raises `ConfigurationError` at once; so does an object
    that is not an endpoint, such as the result of a route decorator that returns nothing.
    """
    if callable(rate):
        raise ConfigurationError("@limit needs a rate: write @limit('5/minute')")
    if "paths" in options:
        raise ConfigurationError("@limit: paths: a decorator limits its own endpoint; use a Limit in the settings")
    dimensions = (per,) if isinstance(per, str) else tuple(per)
    fields = {"rate": rate, "per": ("endpoint", *(d for d in dimensions if d != "endpoint")), **options}

    def decorate(endpoint: Endpoint) -> Endpoint:
        declared = _declaration(endpoint, "limit")
        own = _limit({"name": name or _name_of(endpoint), **fields})
        explicit_names = frozenset({own.name} if name else ())
        _annotate(endpoint, EndpointDeclaration((own,), explicit_names=explicit_names).merged(declared))
        return endpoint

    _limit({"name": name or "decorator", **fields})  # A wrong value fails on its own line.
    return decorate


def exempt(endpoint: Endpoint) -> Endpoint:
    """Exempt the endpoint from all limits: it is not counted and gets no rate-limit header."""
    _annotate(endpoint, _declaration(endpoint, "exempt").merged(EndpointDeclaration(exempt=True)))
    return endpoint


def _limit(fields: dict[str, Any]) -> Limit:
    try:
        return Limit.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"@limit: {path}: {first['msg']}") from error


def _name_of(endpoint: object) -> str:
    name = getattr(endpoint, "__name__", type(endpoint).__name__)
    return name.encode("ascii", "backslashreplace").decode()[:100]


def _declaration(endpoint: object, decorator: str) -> EndpointDeclaration:
    # A route or an app is callable too, but the middleware never looks for limits on it.
    if not callable(endpoint) or isinstance(endpoint, BaseRoute) or hasattr(endpoint, "routes"):
        raise ConfigurationError(
            f"@{decorator} must stand on an endpoint, a function or a class, but got {type(endpoint).__name__}: "
            f"put it below a decorator that does not return the endpoint"
        )
    return declaration_of(endpoint)


def _annotate(endpoint: object, declaration: EndpointDeclaration) -> None:
    try:
        setattr(endpoint, ATTRIBUTE, declaration)
    except AttributeError:
        kind = type(endpoint).__name__
        raise ConfigurationError(f"a {kind} takes no limit: decorate the function that it is made of") from None
    remember_decorated(endpoint)
