"""Transports for httpx that wait for a throttle before each request."""

from types import TracebackType
from typing import Self

import httpx

from ratelimit.throttle import Throttle


class ThrottleTransport(httpx.BaseTransport):
    """Send no faster than a throttle lets: `httpx.Client(transport=ThrottleTransport(Throttle("10/second")))`.

    Inside a `RetryTransport` what is sent again is throttled too. Where a request would wait longer than the throttle's
    `max_wait`, `ratelimit.LimitExceeded` is raised, and it was not sent. The throttle stays open when this is closed.
    """

    def __init__(self, throttle: Throttle, transport: httpx.BaseTransport | None = None) -> None:
        self._throttle = throttle
        self._transport = httpx.HTTPTransport() if transport is None else transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the throttle, and send the request."""
        self._throttle.wait_sync()
        return self._transport.handle_request(request)

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


class AsyncThrottleTransport(httpx.AsyncBaseTransport):
    """Send no faster than a throttle lets, from an event loop; else as `ThrottleTransport`."""

    def __init__(self, throttle: Throttle, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._throttle = throttle
        self._transport = httpx.AsyncHTTPTransport() if transport is None else transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the throttle, and send the request."""
        await self._throttle.wait()
        return await self._transport.handle_async_request(request)

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
