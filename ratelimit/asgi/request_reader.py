"""Lets functions of the app read a request before the app does."""

from starlette.requests import HTTPConnection, Request
from starlette.types import Message, Receive, Scope


class BodyTooLargeError(Exception):
    """The body has more bytes than may be read."""


class RequestReader:
    """Hands out a request several times, each from its start, and then once to the app, as if nothing had been read."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope, self._receive = scope, receive
        self._received: list[Message] = []

    def connection(self, max_body: int | None = None) -> HTTPConnection:
        """Return the request (a WebSocket's handshake has no body); to read more of it than `max_body` bytes raises.

        The error is `BodyTooLargeError`. Where the `Content-Length` says so already, nothing is read.
        """
        if self._scope["type"] != "http":
            return HTTPConnection(self._scope)
        return Request(self._scope, self._from_the_start(max_body))

    @property
    def receive(self) -> Receive:
        """The `receive` for the app."""
        return self._replay if self._received else self._receive

    def _from_the_start(self, max_body: int | None) -> Receive:
        position, size = 0, 0

        async def recording() -> Message:
            nonlocal position, size
            if max_body is not None and max(size, self._announced_size()) > max_body:
                raise BodyTooLargeError
            if position == len(self._received):
                self._received.append(await self._receive())
            position += 1
            message = self._received[position - 1]
            size += len(message.get("body", b""))
            if max_body is not None and size > max_body:
                raise BodyTooLargeError
            return message

        return recording

    def _announced_size(self) -> int:
        announced = next((value for name, value in self._scope["headers"] if name == b"content-length"), b"")
        return int(announced) if announced.isdigit() else 0

    async def _replay(self) -> Message:
        return self._received.pop(0) if self._received else await self._receive()
