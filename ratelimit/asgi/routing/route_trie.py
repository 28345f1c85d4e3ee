"""A trie of path segments, so that finding the few routes that may match does not grow with the number of routes."""

import re
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

_ONE_SEGMENT: Final = ("StringConvertor", "IntegerConvertor", "FloatConvertor", "UUIDConvertor")
_PARAMETER: Final = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::[^}]*)?\}")


class _TrieNode(Generic[T]):
    """One segment: `ends` are paths that end here, `tails` those that go on over any number of segments."""

    __slots__ = ("ends", "literal", "parameter", "tails")

    def __init__(self) -> None:
        self.literal: dict[str, _TrieNode[T]] = {}
        self.parameter: _TrieNode[T] | None = None
        self.ends: list[tuple[int, T]] = []
        self.tails: list[tuple[int, T]] = []


class RouteTrie(Generic[T]):
    """Holds values under path templates and returns, for a path, those that may match it, in the order of adding.

    It only rules out routes; whether one matches is for the framework to decide.
    """

    def __init__(self) -> None:
        self._root: _TrieNode[T] = _TrieNode()
        self._count = 0

    def add(self, path: str, convertors: Mapping[str, Any], value: T) -> None:
        """Put `value` under a template such as `/runs/{id:int}/steps`."""
        node = self._root
        for segment in path.split("/")[1:]:
            names = _PARAMETER.findall(segment)
            if any(type(convertors.get(name)).__name__ not in _ONE_SEGMENT for name in names):
                node.tails.append((self._next(), value))
                return
            if names:
                node.parameter = node.parameter or _TrieNode()
                node = node.parameter
            else:
                node = node.literal.setdefault(segment, _TrieNode())
        node.ends.append((self._next(), value))

    def add_anywhere(self, value: T) -> None:
        """Put `value` where every path may match it."""
        self._root.tails.append((self._next(), value))

    def candidates(self, path: str) -> list[T]:
        """Return the values that may match `path`."""
        found: list[tuple[int, T]] = []
        nodes = [self._root]
        # The `$` at the end of the framework's patterns also matches before a last newline (%0A).
        path = path.removesuffix("\n")
        for segment in path.split("/")[1:]:
            below: list[_TrieNode[T]] = []
            for node in nodes:
                found += node.tails
                if (literal := node.literal.get(segment)) is not None:
                    below.append(literal)
                if node.parameter is not None:
                    below.append(node.parameter)
            nodes = below
            if not nodes:
                break
        for node in nodes:
            found += node.ends
            found += node.tails
        return [value for _, value in sorted(found, key=lambda pair: pair[0])]

    def _next(self) -> int:
        self._count += 1
        return self._count
