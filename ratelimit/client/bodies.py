"""Bodies of requests and responses: which can be sent again, which are read, and when they end."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx


def is_replayable(request: httpx.Request) -> bool:
    """Say whether the body can be sent again: it is in memory, or in files that can be rewound."""
    try:
        request.content  # noqa: B018 - raises where it was never read
    except RuntimeError:
        fields = getattr(request.stream, "fields", None)
        return fields is not None and all(_is_rewindable(getattr(field, "file", b"")) for field in fields)
    return True


def _is_rewindable(file: Any) -> bool:
    if isinstance(file, (str, bytes)):
        return True
    try:
        return bool(file.seekable())
    except (AttributeError, ValueError):  # The file is closed by now.
        return False


def is_read(response: httpx.Response) -> bool:
    """Say whether the body is in memory."""
    try:
        response.content  # noqa: B018 - raises where it was not read
    except RuntimeError:
        return False
    return True


def is_over(response: httpx.Response) -> bool:
    """Say whether a response needs its connection no more: it is closed, or its body is in memory."""
    return response.is_closed or is_read(response)


def buffered_response(response: Any, body: bytes, *, whole: bool) -> Any:
    """Return a copy of a closed response, whose body is what was read of it.

    A body that is not `whole`, or cannot be decoded, is kept as it was received. If no copy can be made, the response
    itself is returned.
    """
    headers = [each for each in response.headers.multi_items() if whole or each[0] != "content-encoding"]
    try:
        return type(response)(
            response.status_code,
            headers=headers,
            content=body,
            request=response.request,
            extensions={"ratelimit": response.extensions["ratelimit"]},
        )
    except Exception:  # noqa: BLE001 - the body contradicts its headers
        return buffered_response(response, body, whole=False) if whole else response


def call_when_closed(response: Any, function: Callable[[], None]) -> None:
    """Call `function` when a response is closed that is not over yet: at the end of its body, or before."""
    # The stream stays what it is: a client checks its class, which is another one in httpx2.
    stream = response.stream
    close = stream.close

    def _close_and_call() -> None:
        try:
            close()
        finally:
            function()

    stream.close = _close_and_call


def call_when_aclosed(response: Any, function: Callable[[], Awaitable[None] | None]) -> None:
    """As `call_when_closed`, for the response of an async transport; a coroutine of `function` is awaited."""
    stream = response.stream
    aclose = stream.aclose

    async def _close_and_call() -> None:
        try:
            await aclose()
        finally:
            if (result := function()) is not None:
                await result

    stream.aclose = _close_and_call
