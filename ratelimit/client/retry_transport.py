"""Transports for httpx that retry refused requests, and hold back requests that would be refused."""

import threading
from collections.abc import Callable, Hashable
from contextlib import aclosing, closing, suppress
from typing import Final, cast

import anyio
import httpx

from ratelimit._utils.validation import is_int
from ratelimit.client.base_transport import AsyncTransportWrapper, TransportWrapper
from ratelimit.client.bodies import buffered_response, call_when_aclosed, call_when_closed, is_over, is_read
from ratelimit.client.request_keys import default_limit_key
from ratelimit.client.retry_engine import (
    Action,
    DrainResponse,
    RetryEngine,
    SendRequest,
    Sleep,
    WaitEvent,
)
from ratelimit.client.retry_policy import DEFAULT_RETRY_POLICY, RetryPolicy
from ratelimit.clock import monotonic
from ratelimit.errors import ConfigurationError

_MAX_REFUSAL_BYTES: Final = 65_536
"""Bytes that are read of a refusal at most."""

_READ_TIMEOUT_S: Final = 5.0
"""Seconds after which reading a refusal ends."""

_MAX_SLEEP_S: Final = 604_800.0
"""Seconds that a thread sleeps at most before it looks again: `threading` takes no infinite timeout."""


class RetryTransport(TransportWrapper):
    """Obey a server's limits: `httpx.Client(transport=RetryTransport(policy=CONTRACT_A))`.

    A request that is refused with 429 or 503 is sent again as `policy` says, if its body can be: bytes, and forms whose
    files can be rewound, but no generators and no bare files. Limits that responses report (`Retry-After`,
    `X-RateLimit-*`, `RateLimit`) are remembered for each `key` of a request (default: server and credentials) and each
    scope. A request that they would refuse waits before it is sent, first come first served.

    With `max_concurrency`, at most so many requests to one server (scheme, host and port) are on the wire at once, until
    their responses are closed; the others wait, first come first served, and for as long as that takes. A number below 1
    raises `ConfigurationError`.

    The last response is returned whatever its status, and nothing is raised but what `transport` raises.
    `response.extensions["ratelimit"]` holds the number of `attempts` and the seconds `waited`; where the server asks for
    a wait of more than the policy's `max_wait`, that as `retry_after`, and `max_wait` too. During a wait, `on_wait` is
    called every second; an error that it raises ends the wait and goes to the caller. `last_refusal` is the latest
    refusal, read up to 64 KiB. One transport serves any number of threads. `engine` decides, and `wrapped` sends.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | None = None,
        *,
        policy: RetryPolicy = DEFAULT_RETRY_POLICY,
        on_wait: Callable[[WaitEvent], None] | None = None,
        key: Callable[[httpx.Request], Hashable] = default_limit_key,
        max_concurrency: int | None = None,
    ) -> None:
        super().__init__(transport)
        self.engine = _make_engine(policy, on_wait, key, monotonic, max_concurrency)

    @property
    def last_refusal(self) -> httpx.Response | None:
        """The latest response that was a refusal; its body is read unless the response went to the caller."""
        return self.engine.last_refusal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request until it is not refused, or is not to be retried."""
        woken = threading.Event()
        exchange = self.engine.exchange(request, woken.set)
        action, result = next(exchange), None
        while True:
            try:
                result = self._perform(action, request, woken)
            except BaseException as error:  # noqa: BLE001 - the exchange raises it again
                action = exchange.throw(error)
            else:
                try:
                    action = exchange.send(result)
                except StopIteration as done:
                    return cast("httpx.Response", done.value)

    def sleep(self, action: Sleep, woken: threading.Event) -> None:
        """Return when a wait is over, or `woken` is set. Override this, and set `engine.clock`, to use another time."""
        event = threading.Event() if action.queued is None else woken
        event.wait(min(action.seconds, _MAX_SLEEP_S))
        event.clear()

    def _perform(self, action: Action, request: httpx.Request, woken: threading.Event) -> httpx.Response | None:
        if isinstance(action, SendRequest):
            response = self.wrapped.handle_request(request)
            if action.on_closed is not None and not is_over(response):
                call_when_closed(response, action.on_closed)
            return response
        if isinstance(action, DrainResponse):
            return self._drain(action.response)
        self.sleep(action, woken)
        return None

    def _drain(self, response: httpx.Response) -> httpx.Response:
        if is_read(response):
            return response
        body, until = bytearray(), monotonic() + _READ_TIMEOUT_S
        with closing(response), suppress(Exception):
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > _MAX_REFUSAL_BYTES or monotonic() > until:
                    return cast("httpx.Response", buffered_response(response, bytes(body), whole=False))
        return cast("httpx.Response", buffered_response(response, bytes(body), whole=True))


class ResettableEvent:
    """An event of an event loop (asyncio or trio) that is cleared whenever a wait for it ends."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """End the wait that is under way, or else the next one."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return when the event is set, or after so many seconds."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        self._event = anyio.Event()


class AsyncRetryTransport(AsyncTransportWrapper):
    """Obey a server's limits: `httpx.AsyncClient(transport=AsyncRetryTransport(policy=CONTRACT_A))`.

    All that `RetryTransport` promises, in an event loop (asyncio or trio): one transport for each loop. A request whose
    task is cancelled while it waits leaves the queue at once.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        policy: RetryPolicy = DEFAULT_RETRY_POLICY,
        on_wait: Callable[[WaitEvent], None] | None = None,
        key: Callable[[httpx.Request], Hashable] = default_limit_key,
        max_concurrency: int | None = None,
    ) -> None:
        super().__init__(transport)
        self.engine = _make_engine(policy, on_wait, key, anyio.current_time, max_concurrency)

    @property
    def last_refusal(self) -> httpx.Response | None:
        """The latest response that was a refusal; its body is read unless the response went to the caller."""
        return self.engine.last_refusal

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request until it is not refused, or is not to be retried."""
        woken = ResettableEvent()
        exchange = self.engine.exchange(request, woken.set)
        action, result = next(exchange), None
        while True:
            try:
                result = await self._perform(action, request, woken)
            except BaseException as error:  # noqa: BLE001 - the exchange raises it again
                action = exchange.throw(error)
            else:
                try:
                    action = exchange.send(result)
                except StopIteration as done:
                    return cast("httpx.Response", done.value)

    async def sleep(self, action: Sleep, woken: ResettableEvent) -> None:
        """Return when a wait is over, or `woken` is set. Override this, and set `engine.clock`, to use another time."""
        if action.queued is None:
            await anyio.sleep(action.seconds)
        else:
            await woken.wait(action.seconds)

    async def _perform(self, action: Action, request: httpx.Request, woken: ResettableEvent) -> httpx.Response | None:
        if isinstance(action, SendRequest):
            response = await self.wrapped.handle_async_request(request)
            if action.on_closed is not None and not is_over(response):
                call_when_aclosed(response, action.on_closed)
            return response
        if isinstance(action, DrainResponse):
            return await self._drain(action.response)
        await self.sleep(action, woken)
        return None

    async def _drain(self, response: httpx.Response) -> httpx.Response:
        if is_read(response):
            return response
        body, until = bytearray(), anyio.current_time() + _READ_TIMEOUT_S
        async with aclosing(response):
            with suppress(Exception):
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _MAX_REFUSAL_BYTES or anyio.current_time() > until:
                        return cast("httpx.Response", buffered_response(response, bytes(body), whole=False))
        return cast("httpx.Response", buffered_response(response, bytes(body), whole=True))


def _make_engine(
    policy: RetryPolicy,
    on_wait: Callable[[WaitEvent], None] | None,
    key: Callable[[httpx.Request], Hashable],
    clock: Callable[[], float],
    max_concurrency: int | None,
) -> RetryEngine:
    given: object = policy
    if not isinstance(given, RetryPolicy):
        raise ConfigurationError(f"policy: must be a RetryPolicy, not {given!r:.50} [RL706]")
    for name, function in (("on_wait", on_wait), ("key", key)):
        if function is not None and not callable(function):
            raise ConfigurationError(f"{name}: must be a function, not {function!r:.50} [RL706]")
    if max_concurrency is not None and not (is_int(max_concurrency) and max_concurrency >= 1):
        raise ConfigurationError(
            f"max_concurrency: must be an integer, 1 or more, or None; got {max_concurrency!r:.50} [RL706]"
        )
    return RetryEngine(policy, on_wait, key, clock, max_concurrency)
