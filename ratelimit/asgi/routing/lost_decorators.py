"""Decorated functions whose limits have no effect, because another function is served in their place."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

from ratelimit.config.declarations import ATTRIBUTE, EndpointDeclaration

_MAX_DEPTH: Final = 4
"""Levels of closures that are searched."""

_MAX_LAYERS: Final = 20
"""Wrappers around an endpoint that are looked through."""

_decorated: Final[WeakSet[Any]] = WeakSet()
"""Everything that was ever decorated, as long as it lives."""

_served: Final[WeakSet[Any]] = WeakSet()
"""What of it some app serves."""


def remember_decorated(endpoint: object) -> None:
    """Remember that `endpoint` was decorated; an object that allows no weak reference is not remembered."""
    with suppress(TypeError):
        _decorated.add(endpoint)


def find_lost_decorators(served: Sequence[object]) -> Iterator[tuple[object, bool]]:
    """Yield decorated functions whose limits no endpoint of `served` seems to carry, and whether that is certain.

    It is certain where a served wrapper takes any arguments, calls a decorated function and carries no declaration. It is
    not where a served function calls a decorated one that is served nowhere, which may be intended, and where a
    decorated function wraps one that is served without it, since it may belong to another app.
    """
    known = {id(each) for endpoint in served for each in _layers(endpoint)}
    _served.update(each for each in _decorated if id(each) in known)
    for endpoint in served:
        if not _has_declaration(endpoint):
            for inner in _wrapped_by(endpoint):
                if _has_declaration(inner) and id(inner) not in known:
                    yield inner, _takes_any_arguments(endpoint)
    for outer in [each for each in _decorated if each not in _served]:
        wrapped = [inner for inner in _wrapped_by(outer) if id(inner) in known and not _has_declaration(inner)]
        yield from ((outer, False) for _ in wrapped[:1])


def _layers(endpoint: object) -> Iterator[object]:
    """Yield an endpoint and what it openly wraps: partials, bound methods, and what `functools.wraps` names."""
    layer: object = endpoint
    for _ in range(_MAX_LAYERS):
        yield layer
        names = ("__wrapped__", "func", "__func__")
        layer = next((getattr(layer, name) for name in names if getattr(layer, name, None) is not None), None)
        if not callable(layer):
            return


def _takes_any_arguments(endpoint: object) -> bool:
    wanted = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    return inspect.isfunction(endpoint) and bool(endpoint.__code__.co_flags & wanted)


def _has_declaration(endpoint: object) -> bool:
    return isinstance(getattr(endpoint, ATTRIBUTE, None), EndpointDeclaration)


def _wrapped_by(outer: object) -> Iterator[object]:
    """Yield the functions that a function closes over, or that a callable object holds; a few levels deep."""
    seen, waiting = {id(outer)}, [(outer, 0)]
    while waiting:
        thing, depth = waiting.pop()
        for inner in _functions_in(thing):
            if id(inner) not in seen and depth < _MAX_DEPTH:
                seen.add(id(inner))
                waiting.append((inner, depth + 1))
                yield inner


def _functions_in(thing: object) -> list[object]:
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
