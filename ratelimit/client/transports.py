"""Transports for httpx that send again what a server refused, and hold back what it would refuse."""

import threading
from collections.abc import Callable, Hashable
from contextlib import aclosing, closing, suppress
from typing import Final, cast

import anyio
import httpx

from ratelimit.client.around import Around, AsyncAround
from ratelimit.client.exchange import Close, Memory, Pause, Send, Step, Wait, as_read, caller
from ratelimit.client.policy import EXPONENTIAL, RetryPolicy
from ratelimit.clock import monotonic
from ratelimit.errors import ConfigurationError

_MUCH: Final = 65_536
"""Bytes that are read of a refusal, at most."""

_LONG: Final = 5.0
"""Seconds after which the rest of a refusal is not waited for."""

_WEEK: Final = 604_800.0
"""Seconds that may be waited at a time."""


class RetryTransport(Around):
    """Obey a server's limits: `httpx.Client(transport=RetryTransport(policy=CONTRACT_A))`.

    What is refused with 429 or 503 is sent again as `policy` says, where its body can be: bytes, and forms whose files can
    be rewound, but no generators and no files as they are. What a server's answers say of its limits (`Retry-After`, `X-RateLimit-*`,
    `RateLimit`) is remembered for each `key` of a request (server and credentials) and scope, and requests that it would
    refuse wait before they are sent, first come first served. The last response is returned whatever it says, and
    nothing is raised but what `transport` raises; `response.extensions["ratelimit"]` tells the attempts and the seconds
    waited. While it waits, `on_wait` is told every second, and what that raises ends the wait; `last_refusal` is the
    latest response that said no, read up to 64 KiB. One transport serves any number of threads.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | None = None,
        *,
        policy: RetryPolicy = EXPONENTIAL,
        on_wait: Callable[[Wait], None] | None = None,
        key: Callable[[httpx.Request], Hashable] = caller,
    ) -> None:
        super().__init__(transport)
        _check(policy, on_wait, key)
        self._memory = Memory(policy, on_wait, key, monotonic)

    @property
    def last_refusal(self) -> httpx.Response | None:
        """The latest response that refused anything; its body is read unless the caller got it."""
        return self._memory.last_refusal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request until it is served, or the policy has enough."""
        woken = threading.Event()
        exchange = self._memory.exchange(request, woken.set)
        step, answer = next(exchange), None
        while True:
            try:
                answer = self._take(step, request, woken)
            except BaseException as error:  # noqa: BLE001 - it comes back from where it is thrown into
                step = exchange.throw(error)
            else:
                try:
                    step = exchange.send(answer)
                except StopIteration as done:
                    return cast("httpx.Response", done.value)

    def _take(self, step: Step, request: httpx.Request, woken: threading.Event) -> httpx.Response | None:
        if isinstance(step, Send):
            return self._transport.handle_request(request)
        if isinstance(step, Close):
            return self._read(step.response)
        self._rest(step, woken)
        return None

    def _read(self, response: httpx.Response) -> httpx.Response:
        if _is_read(response):
            return response
        body, until = bytearray(), monotonic() + _LONG
        with closing(response), suppress(Exception):
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > _MUCH or monotonic() > until:
                    return cast("httpx.Response", as_read(response, bytes(body), whole=False))
        return cast("httpx.Response", as_read(response, bytes(body), whole=True))

    def _rest(self, pause: Pause, woken: threading.Event) -> None:
        event = threading.Event() if pause.waiter is None else woken
        event.wait(min(pause.seconds, _WEEK))
        event.clear()


class _Woken:
    """An event that can be waited for again and again, in an event loop."""

    def __init__(self) -> None:
        self.event = anyio.Event()

    def set(self) -> None:
        """Wake who waits."""
        self.event.set()

    async def wait(self, seconds: float) -> None:
        """Return when it was set, or so many seconds are over."""
        with anyio.move_on_after(seconds):
            await self.event.wait()
        self.event = anyio.Event()


class AsyncRetryTransport(AsyncAround):
    """Obey a server's limits: `httpx.AsyncClient(transport=AsyncRetryTransport(policy=CONTRACT_A))`.

    All that `RetryTransport` promises, in an event loop (asyncio or trio): one transport for each loop. Who is cancelled
    while waiting leaves the line at once.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        policy: RetryPolicy = EXPONENTIAL,
        on_wait: Callable[[Wait], None] | None = None,
        key: Callable[[httpx.Request], Hashable] = caller,
    ) -> None:
        super().__init__(transport)
        _check(policy, on_wait, key)
        self._memory = Memory(policy, on_wait, key, anyio.current_time)

    @property
    def last_refusal(self) -> httpx.Response | None:
        """The latest response that refused anything; its body is read unless the caller got it."""
        return self._memory.last_refusal

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request until it is served, or the policy has enough."""
        woken = _Woken()
        exchange = self._memory.exchange(request, woken.set)
        step, answer = next(exchange), None
        while True:
            try:
                answer = await self._take(step, request, woken)
            except BaseException as error:  # noqa: BLE001 - it comes back from where it is thrown into
                step = exchange.throw(error)
            else:
                try:
                    step = exchange.send(answer)
                except StopIteration as done:
                    return cast("httpx.Response", done.value)

    async def _take(self, step: Step, request: httpx.Request, woken: _Woken) -> httpx.Response | None:
        if isinstance(step, Send):
            return await self._transport.handle_async_request(request)
        if isinstance(step, Close):
            return await self._read(step.response)
        await self._rest(step, woken)
        return None

    async def _read(self, response: httpx.Response) -> httpx.Response:
        if _is_read(response):
            return response
        body, until = bytearray(), anyio.current_time() + _LONG
        async with aclosing(response):
            with suppress(Exception):
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _MUCH or anyio.current_time() > until:
                        return cast("httpx.Response", as_read(response, bytes(body), whole=False))
        return cast("httpx.Response", as_read(response, bytes(body), whole=True))

    async def _rest(self, pause: Pause, woken: _Woken) -> None:
        if pause.waiter is None:
            await anyio.sleep(pause.seconds)
        else:
            await woken.wait(pause.seconds)


def _is_read(response: httpx.Response) -> bool:
    try:
        response.content  # noqa: B018 - raises where it was not read
    except RuntimeError:
        return False
    return True


def _check(policy: object, on_wait: object, key: object) -> None:
    if not isinstance(policy, RetryPolicy):
        raise ConfigurationError(f"policy: must be a RetryPolicy, not {policy!r:.50}")
    for name, function in (("on_wait", on_wait), ("key", key)):
        if function is not None and not callable(function):
            raise ConfigurationError(f"{name}: must be a function, not {function!r:.50}")
