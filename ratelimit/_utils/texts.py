"""Durations, keys and texts of entries as people read them, on the command line and in the console."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

MAX_TEXT: Final = 500
"""Characters of a reason or a name that an entry keeps."""

HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Characters that a terminal obeys, and those that turn the direction of writing (Unicode TR 36: bidirectional spoofing)."""


def seconds_text(seconds: float | None) -> str:
    """Return a duration: `12 s`, `4 min`, `2 h`, `3 d`; `never` where it is `None` or infinite: waiting does not help."""
    if seconds is None or math.isinf(seconds):
        return "never"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{math.ceil(seconds)} s"


def key_text(key: Mapping[str, str]) -> str:
    """Return whom an entry is for, as `--key` takes it: `org=acme`, several apart by blanks."""
    return " ".join(f"{name}={value}" for name, value in key.items())


def readable(text: str) -> str:
    """Return a text without surrogates, which nothing could write out."""
    return text.encode("utf-8", "replace").decode()


def visible(text: str) -> str:
    r"""Return a text in which characters that are not seen, but obeyed by a terminal or a browser, stand as escapes: `\x1b`."""
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def text_of(text: Any) -> str | None:
    """Return a reason or a name that was read from the store."""
    return None if text is None else readable(str(text))[:MAX_TEXT]
