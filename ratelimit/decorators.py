"""Limits that are declared on an endpoint itself."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypedDict, TypeVar, Unpack
from weakref import ref

from pydantic import ValidationError
from starlette.routing import BaseRoute

from ratelimit.errors import ConfigurationError
from ratelimit.fields import Cost
from ratelimit.policy import FailureMode, Limit
from ratelimit.rate import Rate
from ratelimit.schedule import Hours

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

ATTRIBUTE: Final = "__ratelimit__"

_DEEPEST: Final = 4
_decorated: Final[dict[int, ref[Any]]] = {}
"""All that was ever decorated, as long as it lives, by identity."""
_claimed: Final[set[int]] = set()
"""What of it some app serves."""


class LimitOptions(TypedDict, total=False):
    """The fields of `Limit` that a decorator takes beside its rate, `per` and name."""

    burst: float
    plans: Mapping[str, Rate | str | None]
    unit: str
    methods: str | Sequence[str]
    cost: Cost
    scope: str
    shares: Mapping[str, float]
    schedule: Sequence[Hours]
    shadow: bool
    on_store_failure: FailureMode
    refund_on: int | Sequence[int]
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


def without_effect(served: Sequence[object]) -> Iterator[tuple[object, bool]]:
    """Yield decorated functions whose limits no endpoint of `served` seems to carry, and whether that is certain.

    Certain is a served wrapper that takes any arguments, calls a decorated function and passes nothing on of what was
    said of it. A served function that calls a decorated one which is served nowhere may mean it so; and so may a
    decorated function that wraps one which is served without it, since it may belong to another app.
    """
    known = {id(each) for endpoint in served for each in _layers(endpoint)}
    _claimed.update(known & _decorated.keys())
    for endpoint in served:
        if not _is_declared(endpoint):
            for inner in _wrapped_by(endpoint):
                if _is_declared(inner) and id(inner) not in known:
                    yield inner, _takes_anything(endpoint)
    for key, reference in list(_decorated.items()):
        outer = reference()
        if outer is not None and key not in _claimed:
            wrapped = [inner for inner in _wrapped_by(outer) if id(inner) in known and not _is_declared(inner)]
            yield from ((outer, False) for _ in wrapped[:1])


def _layers(endpoint: object) -> Iterator[object]:
    """Yield an endpoint and what it openly wraps: partials, bound methods, and what `functools.wraps` names."""
    layer: object = endpoint
    for _ in range(20):
        yield layer
        names = ("__wrapped__", "func", "__func__")
        layer = next((getattr(layer, name) for name in names if getattr(layer, name, None) is not None), None)
        if not callable(layer):
            return


def _takes_anything(endpoint: object) -> bool:
    wanted = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    return inspect.isfunction(endpoint) and bool(endpoint.__code__.co_flags & wanted)


def _is_declared(endpoint: object) -> bool:
    return isinstance(getattr(endpoint, ATTRIBUTE, None), Declared)


def _wrapped_by(outer: object) -> Iterator[object]:
    """Yield the functions that a function closes over, or that a callable object holds; a few levels deep."""
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
        held = [_content(cell) for cell in thing.__closure__ or ()]
    else:
        held = list(getattr(thing, "__dict__", {}).values()) if not isinstance(thing, type) else []
    return [each for each in held if inspect.isfunction(each)]


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
    except AttributeError:
        kind = type(endpoint).__name__
        raise ConfigurationError(f"a {kind} takes no limit: decorate the function that it is made of") from None
    key = id(endpoint)
    with suppress(TypeError):  # What allows no weak reference is not missed.
        _decorated[key] = ref(endpoint, lambda _: _forget(key))


def _forget(key: int) -> None:
    _decorated.pop(key, None)
    _claimed.discard(key)
