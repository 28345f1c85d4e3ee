"""Limits that are declared on an endpoint itself."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict, TypeVar, Unpack
from weakref import WeakSet

from pydantic import ValidationError
from starlette.routing import BaseRoute

from ratelimit.errors import ConfigurationError
from ratelimit.policy import FailureMode, Limit
from ratelimit.rate import Rate

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

ATTRIBUTE: Final = "__ratelimit__"

_DEEPEST: Final = 4
_decorated: Final[WeakSet[Any]] = WeakSet()
"""All that was ever decorated, as long as it lives: what no route serves has lost its limit."""


class LimitOptions(TypedDict, total=False):
    """The fields of `Limit` that a decorator takes beside its rate, `per` and name."""

    burst: float
    plans: Mapping[str, Rate | str | None]
    methods: str | Sequence[str]
    cost: int
    scope: str
    shadow: bool
    on_store_failure: FailureMode
    code: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Declared:
    """What decorators said of one endpoint: its limits from top to bottom, and whether it is exempt.

    `named` holds the names that were chosen by hand; the others were taken from the function and may be changed.
    """

    limits: tuple[Limit, ...] = ()
    exempt: bool = False
    named: frozenset[str] = frozenset()


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
    `Limit` (`burst`, `plans`, `cost`, `shadow`, …). A wrong value raises `ConfigurationError` at once; so does
    something that is no endpoint, such as the result of a route decorator that returns nothing.
    """
    if callable(rate):
        raise ConfigurationError("@limit needs a rate: write @limit('5/minute')")
    if "paths" in options:
        raise ConfigurationError("@limit: paths: a decorator holds where it stands; use a Limit in the settings")
    dimensions = (per,) if isinstance(per, str) else tuple(per)
    fields = {"rate": rate, "per": ("endpoint", *(d for d in dimensions if d != "endpoint")), **options}

    def decorate(endpoint: Endpoint) -> Endpoint:
        said = _declared(endpoint, "limit")
        one = _limit({"name": name or _name_of(endpoint), **fields})
        _annotate(
            endpoint,
            Declared((one, *said.limits), said.exempt, said.named | ({one.name} if name else frozenset())),
        )
        return endpoint

    _limit({"name": name or "decorator", **fields})  # A wrong value fails on its own line.
    return decorate


def exempt(endpoint: Endpoint) -> Endpoint:
    """Take the endpoint out of all limits: it is not counted and gets no rate-limit header."""
    said = _declared(endpoint, "exempt")
    _annotate(endpoint, Declared(said.limits, True, said.named))
    return endpoint


def declared_on(endpoint: object) -> Declared:
    """Return what decorators said of an endpoint, looking through `functools.partial`."""
    while hasattr(endpoint, "func") and not hasattr(endpoint, ATTRIBUTE):
        endpoint = endpoint.func
    found = getattr(endpoint, ATTRIBUTE, None)
    return found if isinstance(found, Declared) else Declared()


def without_effect(served: Sequence[object]) -> Iterator[object]:
    """Yield the decorated functions whose limits no endpoint of `served` carries, because of a decorator between.

    Either a served function wraps a decorated one without passing on what was said of it, or a decorated function
    wraps one that is served without it. An endpoint that calls another served one is neither.
    """
    known = {id(endpoint) for endpoint in served}
    for endpoint in served:
        if not _is_declared(endpoint):
            yield from (inner for inner in _wrapped_by(endpoint) if _is_declared(inner) and id(inner) not in known)
    for outer in list(_decorated):
        if id(outer) not in known:
            yield from (outer for inner in _wrapped_by(outer) if id(inner) in known and not _is_declared(inner))


def _is_declared(endpoint: object) -> bool:
    return isinstance(getattr(endpoint, ATTRIBUTE, None), Declared)


def _wrapped_by(outer: object) -> Iterator[object]:
    """Yield what a function closes over, or an object holds, that may be a function it calls; a few levels deep."""
    seen, waiting = {id(outer)}, [(outer, 0)]
    while waiting:
        thing, depth = waiting.pop()
        for inner in _held_by(thing):
            if id(inner) not in seen and depth < _DEEPEST:
                seen.add(id(inner))
                waiting.append((inner, depth + 1))
                yield inner


def _held_by(thing: object) -> list[object]:
    if inspect.isfunction(thing):
        contents = [_content(cell) for cell in thing.__closure__ or ()]
        return [each for each in contents if callable(each) and not isinstance(each, type)]
    own = getattr(thing, "__dict__", {}) if not isinstance(thing, type) else {}
    return [each for each in own.values() if inspect.isfunction(each)]


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # A cell that is not filled yet.
        return None


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


def _declared(endpoint: object, decorator: str) -> Declared:
    # A route or an app is callable too, but nobody would ever look for limits on it.
    if not callable(endpoint) or isinstance(endpoint, BaseRoute) or hasattr(endpoint, "routes"):
        raise ConfigurationError(
            f"@{decorator} must stand on an endpoint, a function or a class, but got {type(endpoint).__name__}: "
            f"put it below a decorator that does not return the endpoint"
        )
    return declared_on(endpoint)


def _annotate(endpoint: object, said: Declared) -> None:
    try:
        setattr(endpoint, ATTRIBUTE, said)
        _decorated.add(endpoint)
    except AttributeError:
        kind = type(endpoint).__name__
        raise ConfigurationError(f"a {kind} takes no limit: decorate the function that it is made of") from None
