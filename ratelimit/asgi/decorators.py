"""`limit` and `exempt`: limits that are declared on an endpoint itself, by a decorator or as a dependency of FastAPI."""

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, Unpack, overload

from pydantic import ValidationError
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from ratelimit.asgi.routing.lost_decorators import remember_decorated
from ratelimit.config.declarations import ATTRIBUTE, EndpointDeclaration, declaration_of, name_of
from ratelimit.config.policies import Limit, LimitOptions
from ratelimit.enforcement.decision import Decision
from ratelimit.errors import ConfigurationError
from ratelimit.model.rate import Rate

logger = logging.getLogger("ratelimit")

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

DECISION: Final = "ratelimit"
"""The name in a request's state under which its decision is kept."""

_CONNECTION: Final = inspect.Parameter("connection", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=HTTPConnection)


class EndpointLimit:
    """What `limit` returns: decorates an endpoint, or is a dependency, `Depends(limit("5/minute"))`.

    As a dependency it limits every route that depends on it, each with a counter of its own, and its value is the
    request's `Decision`. Either way the middleware charges it, in one step with all other limits of the request.
    """

    __signature__: Final = inspect.Signature([_CONNECTION], return_annotation=Decision)

    def __init__(self, limits: Sequence[dict[str, Any]], name: str | None) -> None:
        self._limits, self._name = limits, name
        self.is_seen = False
        """Whether the middleware has found it among the dependencies of a route."""
        # FastAPI looks here to see that the call is async, and needs no thread; it calls the type's `__call__`.
        vars(self)["__call__"] = self._decision
        self.declaration_for("decorator")  # A wrong value fails on its own line.

    @overload
    def __call__(self, endpoint: Endpoint) -> Endpoint: ...
    @overload
    def __call__(self, *, connection: HTTPConnection) -> Any: ...
    def __call__(self, endpoint: Any = None, *, connection: HTTPConnection | None = None) -> Any:
        """Decorate `endpoint`; or, as FastAPI calls a dependency, return the decision of a request."""
        if connection is not None:
            return self._decision(connection)
        declared = _declaration(endpoint, "limit")
        _annotate(endpoint, self.declaration_for(name_of(endpoint)).merged(declared))
        return endpoint

    def declaration_for(self, endpoint_name: str) -> EndpointDeclaration:
        """Return what this declares for an endpoint: limits that have its name, if none was chosen by hand."""
        name = self._name or endpoint_name
        names = [name, *(f"{name}-{number}" for number in range(2, len(self._limits) + 1))]
        limits = tuple(_limit({"name": own, **fields}) for own, fields in zip(names, self._limits, strict=True))
        return EndpointDeclaration(limits, explicit_names=frozenset(names if self._name else ()))

    async def _decision(self, connection: HTTPConnection) -> Decision:
        found = connection.scope.get("state", {}).get(DECISION)
        if not isinstance(found, Decision):
            raise ConfigurationError(
                "Depends(limit(…)) limits nothing without the middleware: write "
                "app.add_middleware(RateLimitMiddleware, settings=RateLimitSettings(…)) [RL203]"
            )
        if not self.is_seen:
            self.is_seen = True  # Said once.
            logger.warning(
                "Depends(limit(…)) with %s limits nothing at %s: the middleware does not see that route; give what is "
                "between them an attribute `app` [RL204]",
                self._limits[0]["rate"],
                connection.url.path,
            )
        return found


def limit(
    rate: str | Rate,
    *,
    per: str | Sequence[str] = (),
    name: str | None = None,
    **options: Unpack[LimitOptions],
) -> EndpointLimit:
    """Give the endpoint a limit of its own, of scope `endpoint`, counted apart for each value of `per`.

    As a decorator it works on functions (sync and async), methods of class-based endpoints and whole classes, above or
    below the route decorator, and may be used several times. The endpoint stays as it is: it needs no `request`
    parameter. As a dependency of FastAPI, `Depends(limit("5/minute", per="token"))`, it stands on a route, a router or an
    app, on WebSocket routes too; each route counts apart, and as a parameter's value it is the request's `Decision`.

    `RateLimitMiddleware` charges it, together with the limits of the settings. `rate` may be several rates,
    `"5/minute;100/hour"`, which all hold. `options` are the other fields of `Limit` (`burst`, `plans`, `cost`, `key`,
    `shadow`, …). A wrong value raises `ConfigurationError` at once; so does an object that is not an endpoint, such as the result of
    a route decorator that returns nothing, a router or an app.
    """
    if callable(rate):
        raise ConfigurationError("@limit needs a rate: write @limit('5/minute') [RL201]")
    if "paths" in options:
        raise ConfigurationError(
            "@limit: paths: a decorator limits its own endpoint; use a Limit in the settings [RL201]"
        )
    if options.get("manual") or options.get("default"):
        raise ConfigurationError(
            "@limit: manual, default: a limit on an endpoint is its own, and charged by its requests [RL201]"
        )
    dimensions = (per,) if isinstance(per, str) else tuple(per)
    common = {"per": ("endpoint", *(d for d in dimensions if d != "endpoint")), **options}
    rates = rate.split(";") if isinstance(rate, str) else [rate]
    return EndpointLimit([{"rate": each, **common} for each in rates], name)


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
        raise ConfigurationError(f"@limit: {path}: {first['msg']} [RL201]") from error


def _declaration(endpoint: object, decorator: str) -> EndpointDeclaration:
    if hasattr(endpoint, "include_router"):
        kind = type(endpoint).__name__
        raise ConfigurationError(
            f"@{decorator} must stand on an endpoint, but got {kind}: for all its routes write "
            f"{kind}(dependencies=[Depends(limit('5/minute'))]), or a Limit with paths in the settings [RL202]"
        )
    # A route or an app is callable too, but the middleware never looks for limits on it.
    if not callable(endpoint) or isinstance(endpoint, BaseRoute) or hasattr(endpoint, "routes"):
        raise ConfigurationError(
            f"@{decorator} must stand on an endpoint, a function or a class, but got {type(endpoint).__name__}: "
            f"put it below a decorator that does not return the endpoint [RL202]"
        )
    return declaration_of(endpoint)


def _annotate(endpoint: object, declaration: EndpointDeclaration) -> None:
    try:
        setattr(endpoint, ATTRIBUTE, declaration)
    except AttributeError:
        kind = type(endpoint).__name__
        raise ConfigurationError(f"a {kind} takes no limit: decorate the function that it is made of [RL202]") from None
    remember_decorated(endpoint)
