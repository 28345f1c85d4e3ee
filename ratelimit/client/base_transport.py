"""Base classes of httpx transports that wrap another transport."""

from types import TracebackType
from typing import Self

import httpx

from ratelimit.errors import ConfigurationError


class TransportWrapper(httpx.BaseTransport):
    """Opens and closes the transport that it wraps: `transport`, or one of httpx's own where that is `None`.

    `wrapped` is that transport. An async transport, or what is no transport, raises `ConfigurationError`.
    """

    def __init__(self, transport: httpx.BaseTransport | None) -> None:
        _check_transport(transport, httpx.BaseTransport)
        self.wrapped = httpx.HTTPTransport() if transport is None else transport

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {self.wrapped!r}>"

    def close(self) -> None:
        """Close the wrapped transport."""
        self.wrapped.close()

    def __enter__(self) -> Self:
        self.wrapped.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.wrapped.__exit__(exc_type, exc_value, traceback)


class AsyncTransportWrapper(httpx.AsyncBaseTransport):
    """As `TransportWrapper`, for async transports: a sync transport raises `ConfigurationError`."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None) -> None:
        _check_transport(transport, httpx.AsyncBaseTransport)
        self.wrapped = httpx.AsyncHTTPTransport() if transport is None else transport

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {self.wrapped!r}>"

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self.wrapped.aclose()

    async def __aenter__(self) -> Self:
        await self.wrapped.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.wrapped.__aexit__(exc_type, exc_value, traceback)


def _check_transport(transport: object, kind: type) -> None:
    if transport is not None and not isinstance(transport, kind):
        raise ConfigurationError(f"transport: must be an httpx.{kind.__name__}, not {type(transport).__name__} [RL706]")
