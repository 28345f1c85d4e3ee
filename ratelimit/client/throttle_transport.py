"""Transports for httpx that wait for a throttle before each request."""

import httpx

from ratelimit.client.base_transport import AsyncTransportWrapper, TransportWrapper
from ratelimit.errors import ConfigurationError
from ratelimit.outbound.throttle import Throttle


class ThrottleTransport(TransportWrapper):
    """Send no faster than a throttle allows: `httpx.Client(transport=ThrottleTransport(Throttle("10/second")))`.

    Wrapped in a `RetryTransport`, retries are throttled too. A request that would wait longer than the throttle's
    `max_wait` is not sent, and raises `ratelimit.LimitExceeded`. In a thread whose event loop runs it raises
    `ConfigurationError`. Closing the transport does not close the throttle.
    """

    def __init__(self, throttle: Throttle, transport: httpx.BaseTransport | None = None) -> None:
        super().__init__(transport)
        self._throttle = _checked_throttle(throttle)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the throttle, and send the request."""
        self._throttle.wait_sync()
        return self.wrapped.handle_request(request)


class AsyncThrottleTransport(AsyncTransportWrapper):
    """As `ThrottleTransport`, in an event loop."""

    def __init__(self, throttle: Throttle, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(transport)
        self._throttle = _checked_throttle(throttle)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the throttle, and send the request."""
        await self._throttle.wait()
        return await self.wrapped.handle_async_request(request)


def _checked_throttle(throttle: object) -> Throttle:
    if not isinstance(throttle, Throttle):
        raise ConfigurationError(f"throttle: must be a Throttle, not {throttle!r:.50}")
    return throttle
