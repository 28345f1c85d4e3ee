"""Where the value of a dimension is found in a request, as the settings declare it."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, PlainSerializer, WithJsonSchema

from ratelimit.config.fields import check_request_function, invalid

DimensionFunction = Callable[[Any], str | int | Awaitable[str | int | None] | None]
"""Tells the value for a request (`Request`, or `HTTPConnection` for a WebSocket), `None` where it has none; may be async."""

DimensionSource = str | DimensionFunction
"""A place, `"header:x-region"`, or a function of the request."""

_PLACE: Final = re.compile(r"(path|header|query|cookie|json):(\S+)")
_HOW: Final = "write 'path:', 'header:', 'query:', 'cookie:' or 'json:' and a name, or a function of the request"


def split_source(source: str) -> tuple[str, str]:
    """Split a place, such as `"header:x-region"`, into its kind and the name there."""
    match = _PLACE.fullmatch(source)
    if match is None:
        raise invalid(f"{source!r:.100} is not a source: {_HOW} [RL111]")
    return match[1], match[2]


def named_sources(value: Any) -> Any:
    """Return dimensions as a mapping from their names to their sources; a list of names has none."""
    if isinstance(value, Mapping):
        return value
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        raise invalid("must be a list of names, or a table of names and sources [RL111]")
    for name in names:
        if not isinstance(name, str):
            raise invalid("must be a list of names, or a table of names and sources [RL111]")
        if names.count(name) > 1:
            raise invalid(f"{name!r} is listed twice [RL111]")
    return dict.fromkeys(names)


def check_source(value: Any) -> Any:
    """Return the source (`None`: `identify` alone tells the value), or raise `ValueError`."""
    if isinstance(value, str):
        split_source(value)
    elif value is not None:
        if not callable(value):
            raise invalid(f"{value!r:.100} is not a source: {_HOW} [RL111]")
        check_request_function(value)
    return value


if TYPE_CHECKING:
    Source = DimensionSource | None
else:
    Source = Annotated[
        Any, AfterValidator(check_source), WithJsonSchema({"type": "string"}), PlainSerializer(lambda source: source)
    ]
