"""Path patterns: route templates and globs, as the settings name endpoints."""

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import Final

EXCEPT: Final = "!"
"""Begins a path that a list of paths leaves out."""

_UNFIXED: Final = re.compile(r"[*?{]")
_CONVERTOR: Final = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*):[^}]*\}")


def strip_convertors(path: str) -> str:
    """Return a path without its convertors: `/runs/{id:int}` is `/runs/{id}`."""
    return _CONVERTOR.sub(r"{\1}", path)


class PathPattern:
    """Matches route templates by a template or a glob, in which `*` stands for anything and `?` for one character.

    Convertors and a slash at the end make no difference, as they make no other endpoint.
    """

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self._template = strip_convertors(pattern).rstrip("/") or "/"
        # '[' begins a character set in fnmatch; in a path it is only itself.
        self._fullmatch = re.compile(fnmatch.translate(self._template.replace("[", "[[]"))).match

    def matches(self, template: str) -> bool:
        """Say whether the template is this pattern or matches it."""
        template = template.rstrip("/") or "/"
        return template == self._template or self._fullmatch(template) is not None

    def may_match_below(self, head: str) -> bool:
        """Say whether a path that begins with `head` may match this pattern."""
        fixed = _UNFIXED.split(self._template)[0]
        return fixed.startswith(head) or head.startswith(fixed)


class PathSelection:
    """The paths of a policy: those that one of its patterns means, except those that a pattern after a `!` means.

    Without patterns all paths are meant, and without any but those after a `!`, all others.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        paths = tuple(paths)
        self.included = tuple(PathPattern(path) for path in paths if not path.startswith(EXCEPT))
        self.excluded = tuple(PathPattern(path[1:]) for path in paths if path.startswith(EXCEPT))

    def selects(self, fits: Callable[[PathPattern], bool]) -> bool:
        """Say whether a place is meant, of which `fits` says which patterns mean it."""
        is_included = not self.included or any(map(fits, self.included))
        return is_included and not any(map(fits, self.excluded))
