"""Transports for httpx that wait for a throttle before each request."""

from contextlib import AsyncExitStack, ExitStack

import httpx

from ratelimit.client.base_transport import AsyncTransportWrapper, TransportWrapper
from ratelimit.client.bodies import call_when_aclosed, call_when_closed, is_over
from ratelimit.errors import ConfigurationError
from ratelimit.outbound.throttle import Throttle


class ThrottleTransport(TransportWrapper):
    """Send no faster than a throttle allows: `httpx.Client(transport=ThrottleTransport(Throttle("10/second")))`.

    Wrapped in a `RetryTransport`, retries are throttled too. With the throttle's `concurrency`, at most so many requests
    are on the wire at once, each until its response is closed; the others wait. A request that would wait longer than the throttle's
    `max_wait` is not sent, and raises `ratelimit.LimitExceeded`. In a thread whose event loop runs it raises
    `ConfigurationError`. Closing the transport does not close the throttle.
    """

    def __init__(self, throttle: Throttle, transport: httpx.BaseTransport | None = None) -> None:
        super().__init__(transport)
        self._throttle = _checked_throttle(throttle)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the throttle, and send the request."""
        with ExitStack() as held:
            held.enter_context(self._throttle)
            response = self.wrapped.handle_request(request)
            if self._throttle.concurrency is not None and not is_over(response):
                call_when_closed(response, held.pop_all().close)
            return response


class AsyncThrottleTransport(AsyncTransportWrapper):
    """As `ThrottleTransport`, in an event loop."""

    def __init__(self, throttle: Throttle, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(transport)
        self._throttle = _checked_throttle(throttle)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the throttle, and send the request."""
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._throttle)
            response = await self.wrapped.handle_async_request(request)
            if self._throttle.concurrency is not None and not is_over(response):
                call_when_aclosed(response, held.pop_all().aclose)
            return response


def _checked_throttle(throttle: object) -> Throttle:
    if not isinstance(throttle, Throttle):
        raise ConfigurationError(f"throttle: must be a Throttle, not {throttle!r:.50} [RL706]")
    return throttle
