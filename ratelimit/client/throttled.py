"""Transports for httpx that wait for a throttle before each request."""

import httpx

from ratelimit.client.around import Around, AsyncAround
from ratelimit.errors import ConfigurationError
from ratelimit.throttle import Throttle


class ThrottleTransport(Around):
    """Send no faster than a throttle lets: `httpx.Client(transport=ThrottleTransport(Throttle("10/second")))`.

    Inside a `RetryTransport` what is sent again is throttled too. Where a request would wait longer than the throttle's
    `max_wait`, `ratelimit.LimitExceeded` is raised, and it was not sent. In a thread whose event loop runs it raises
    `ConfigurationError`. The throttle stays open when this is closed.
    """

    def __init__(self, throttle: Throttle, transport: httpx.BaseTransport | None = None) -> None:
        super().__init__(transport)
        self._throttle = _checked(throttle)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the throttle, and send the request."""
        self._throttle.wait_sync()
        return self._transport.handle_request(request)


class AsyncThrottleTransport(AsyncAround):
    """Send no faster than a throttle lets, from an event loop; else as `ThrottleTransport`."""

    def __init__(self, throttle: Throttle, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(transport)
        self._throttle = _checked(throttle)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the throttle, and send the request."""
        await self._throttle.wait()
        return await self._transport.handle_async_request(request)


def _checked(throttle: object) -> Throttle:
    if not isinstance(throttle, Throttle):
        raise ConfigurationError(f"throttle: must be a Throttle, not {throttle!r:.50}")
    return throttle
