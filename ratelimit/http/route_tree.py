"""A tree of path segments, so that finding the few routes that may match does not grow with their number."""

import re
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

_ONE_SEGMENT: Final = ("StringConvertor", "IntegerConvertor", "FloatConvertor", "UUIDConvertor")
_PARAMETER: Final = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::[^}]*)?\}")


class _Node(Generic[T]):
    """What hangs at one segment: `ends` of paths that stop here, `tails` that go on over any number of segments."""

    __slots__ = ("ends", "literal", "tails", "wild")

    def __init__(self) -> None:
        self.literal: dict[str, _Node[T]] = {}
        self.wild: _Node[T] | None = None
        self.ends: list[tuple[int, T]] = []
        self.tails: list[tuple[int, T]] = []


class RouteTree(Generic[T]):
    """Holds things under path templates and returns, for a path, those that may match it, in the order of adding.

    It only rules out: whether one matches is for the framework to say.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._count = 0

    def add(self, path: str, convertors: Mapping[str, Any], thing: T) -> None:
        """Put `thing` under a template such as `/runs/{id:int}/steps`."""
        node = self._root
        for segment in path.split("/")[1:]:
            names = _PARAMETER.findall(segment)
            if any(type(convertors.get(name)).__name__ not in _ONE_SEGMENT for name in names):
                node.tails.append((self._next(), thing))
                return
            if names:
                node.wild = node.wild or _Node()
                node = node.wild
            else:
                node = node.literal.setdefault(segment, _Node())
        node.ends.append((self._next(), thing))

    def add_anywhere(self, thing: T) -> None:
        """Put `thing` where every path may match it."""
        self._root.tails.append((self._next(), thing))

    def candidates(self, path: str) -> list[T]:
        """Return what may match `path`."""
        found: list[tuple[int, T]] = []
        nodes = [self._root]
        # The `$` at the end of the framework's patterns also matches before a last newline (%0A).
        path = path.removesuffix("\n")
        for segment in path.split("/")[1:]:
            below: list[_Node[T]] = []
            for node in nodes:
                found += node.tails
                if (literal := node.literal.get(segment)) is not None:
                    below.append(literal)
                if node.wild is not None:
                    below.append(node.wild)
            nodes = below
            if not nodes:
                break
        for node in nodes:
            found += node.ends
            found += node.tails
        return [thing for _, thing in sorted(found, key=lambda pair: pair[0])]

    def _next(self) -> int:
        self._count += 1
        return self._count
