"""Request dimensions: the values that the settings' sources find in a request."""

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from starlette.requests import ClientDisconnect, HTTPConnection, Request

from ratelimit._utils.sampling import SampledLog
from ratelimit.asgi.request_reader import BodyTooLargeError, RequestReader
from ratelimit.config.dimension_sources import DimensionSource, split_source
from ratelimit.model.identity import Identity

logger = logging.getLogger("ratelimit")

_LOG_INTERVAL_S: Final = 10.0
_NOT_READ: Final = object()


class RequestDimensions:
    """Adds to an identity the dimensions that are found in its request: in its path, headers, query, cookies or body.

    A value that is missing, empty, or neither text nor an integer leaves the dimension unknown. So does a function that
    fails, which is logged, and a body of more than `max_body` bytes, of which the log has one line for each dimension.
    """

    def __init__(self, max_body: int, on_error: Callable[[str], None] | None = None) -> None:
        self._max_body, self._on_error = max_body, on_error
        self._failed = SampledLog(logger, _LOG_INTERVAL_S)
        self._too_large: set[str] = set()

    async def add_to(
        self, identity: Identity, sources: Mapping[str, DimensionSource], reader: RequestReader
    ) -> Identity:
        """Return the identity with the dimensions of these sources; what it has already, stays."""
        found: dict[str, str] = {}
        body = _JsonBody()
        for name, source in sources.items():
            if not identity.dimensions.get(name) and (value := await self._read(name, source, reader, body)):
                found[name] = value
        return replace(identity, dimensions={**identity.dimensions, **found}) if found else identity

    async def _read(self, name: str, source: DimensionSource, reader: RequestReader, body: "_JsonBody") -> str | None:
        connection = reader.connection(self._max_body)
        try:
            if isinstance(source, str):
                return _text(await _value_at(source, connection, body))
            value: Any = source(connection)
            value = await value if inspect.isawaitable(value) else value
            if value is not None and not _is_text(value):
                self._failed.error(
                    "dimension %r: must be text or an integer, got %s [RL503]", name, type(value).__name__
                )
            return _text(value)
        except BodyTooLargeError:
            self._warn_of_size(name)
        except ClientDisconnect:
            pass
        except Exception as error:  # noqa: BLE001 - logged, without its text, which may hold a credential
            if self._on_error is not None:
                self._on_error("other")
            self._failed.error("dimension %r: its function failed with %s [RL503]", name, type(error).__name__)
        return None

    def _warn_of_size(self, name: str) -> None:
        if name not in self._too_large:
            self._too_large.add(name)
            logger.warning(
                "dimension %r is unknown for bodies of more than %d bytes (max_body): its limits do not apply to them [RL504]",
                name,
                self._max_body,
            )


class _JsonBody:
    """The JSON of a request's body, parsed once; `None` where it is none."""

    def __init__(self) -> None:
        self._value: Any = _NOT_READ

    async def get(self, connection: HTTPConnection) -> Any:
        if self._value is _NOT_READ:
            self._value = await _parsed(connection) if isinstance(connection, Request) else None
        return self._value


async def _parsed(request: Request) -> Any:
    body = await request.body()
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None  # The app answers for it.


async def _value_at(source: str, connection: HTTPConnection, body: _JsonBody) -> Any:
    kind, name = split_source(source)
    if kind == "json":
        return _member(await body.get(connection), name)
    places: dict[str, Mapping[str, Any]] = {
        "path": connection.path_params,
        "header": connection.headers,
        "query": connection.query_params,
        "cookie": connection.cookies if kind == "cookie" else {},
    }
    return places[kind].get(name)


def _member(value: Any, path: str) -> Any:
    """Return the member of a JSON value at a path of names and positions, such as `user.emails.0`, or `None`."""
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and len(step) < 10 and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, (str, int, UUID)) and not isinstance(value, bool)


def _text(value: object) -> str | None:
    return str(value) or None if _is_text(value) else None
