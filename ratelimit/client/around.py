"""Transports for httpx that have another one within, which they open and close."""

from types import TracebackType
from typing import Self

import httpx

from ratelimit.errors import ConfigurationError


class Around(httpx.BaseTransport):
    """Holds a transport: the one that is given, or httpx's own. One of the other colour raises `ConfigurationError`."""

    def __init__(self, transport: httpx.BaseTransport | None) -> None:
        _check(transport, httpx.BaseTransport)
        self._transport = httpx.HTTPTransport() if transport is None else transport

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {self._transport!r}>"

    def close(self) -> None:
        """Close the transport within."""
        self._transport.close()

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._transport.__exit__(exc_type, exc_value, traceback)


class AsyncAround(httpx.AsyncBaseTransport):
    """Holds an async transport, in the same way."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None) -> None:
        _check(transport, httpx.AsyncBaseTransport)
        self._transport = httpx.AsyncHTTPTransport() if transport is None else transport

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {self._transport!r}>"

    async def aclose(self) -> None:
        """Close the transport within."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)


def _check(transport: object, kind: type) -> None:
    if transport is not None and not isinstance(transport, kind):
        raise ConfigurationError(f"transport: must be an httpx.{kind.__name__}, not {type(transport).__name__}")
