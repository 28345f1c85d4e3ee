"""One HTTP request straight into an ASGI app, by a client that may close the connection in the middle."""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message


class Call:
    """A request in flight: it keeps the messages that the app sends; `leave` closes the connection, as a client may."""

    def __init__(
        self,
        app: ASGIApp,
        path: str = "/",
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        spec: str = "2.3",
    ) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self._app, self._body = app, [body]
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": spec},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "server": ("test", 80),
            "client": ("127.0.0.1", 1),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        }

    async def run(self) -> "Call":
        """Run the app to its end; raises what the app raises."""
        await self._app(self._scope, self._receive, self._send)
        return self

    def leave(self) -> None:
        self.gone.set()

    @property
    def status(self) -> int:
        return next((int(message["status"]) for message in self.sent if "status" in message), 0)

    @property
    def headers(self) -> dict[str, str]:
        start = next(message for message in self.sent if message["type"] == "http.response.start")
        return {name.decode(): value.decode() for name, value in start["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def _receive(self) -> Message:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.gone.is_set():
            raise OSError
        self.sent.append(message)
