"""Request dimensions: found in the path, headers, query, cookies and body, or by a function."""

import json
import logging
from typing import Any
from uuid import UUID

import pytest
from starlette.requests import HTTPConnection

from ratelimit import Identity
from ratelimit.asgi.request_dimensions import RequestDimensions
from ratelimit.asgi.request_reader import RequestReader
from ratelimit.config.dimension_sources import DimensionSource


async def dimensions_of(
    sources: dict[str, DimensionSource],
    *,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    query: str = "",
    kind: str = "http",
    identity: Identity | None = None,
    reader: RequestDimensions | None = None,
) -> dict[str, str]:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope: dict[str, Any] = {"type": kind, "path": "/", "headers": raw, "query_string": query.encode()}
    if kind == "http":
        scope["method"] = "POST"
    scope["path_params"] = {"tenant": "acme", "id": 7, "ratio": 0.5}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    dimensions = reader or RequestDimensions(max_body=100)
    found = await dimensions.add_to(identity or Identity(), sources, RequestReader(scope, receive))
    return dict(found.dimensions)


async def test_values_are_found_where_the_sources_say() -> None:
    """Texts and integers count; a value of another type, or none, leaves the dimension unknown."""
    sources: dict[str, DimensionSource] = {
        "tenant": "path:tenant",
        "id": "path:id",
        "ratio": "path:ratio",
        "region": "header:X-Region",
        "plan": "query:plan",
        "empty": "query:empty",
        "sid": "cookie:sid",
        "missing": "cookie:missing",
    }
    headers = {"x-region": "eu", "cookie": "sid=s1; other=x"}
    found = await dimensions_of(sources, headers=headers, query="plan=pro&empty=")
    assert found == {"tenant": "acme", "id": "7", "region": "eu", "plan": "pro", "sid": "s1"}


@pytest.mark.parametrize(
    ("value", "path", "found"),
    [
        ({"user": {"email": "a@b"}}, "user.email", "a@b"),
        ({"users": [{"id": 1}, {"id": 2}]}, "users.1.id", "2"),
        ({"users": [1]}, "users.1", None),
        ({"users": [1]}, "users.x", None),
        ({"user": {"email": None}}, "user.email", None),
        ({"user": {"admin": True}}, "user.admin", None),
        ({"user": {"email": {"x": 1}}}, "user.email", None),
        ({"user": "text"}, "user.email", None),
        ([1], "0", "1"),
        ("text", "0", None),
    ],
)
async def test_members_of_a_json_body(value: Any, path: str, found: str | None) -> None:
    """By the names and positions on the way; whatever is not text or an integer is unknown."""
    dimensions = await dimensions_of({"x": f"json:{path}"}, body=json.dumps(value).encode())
    assert dimensions.get("x") == found


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 90])
async def test_a_body_that_is_no_json_leaves_the_dimension_unknown(body: bytes) -> None:
    """The app answers for it."""
    assert await dimensions_of({"x": "json:a"}, body=body) == {}


async def test_functions_tell_values_and_may_be_async() -> None:
    """They take the request; `None` is unknown."""

    async def later(request: HTTPConnection) -> UUID:
        return UUID(int=1)

    sources: dict[str, Any] = {"a": lambda request: request.path_params["id"], "b": later, "c": lambda _: None}
    assert await dimensions_of(sources) == {"a": "7", "b": "00000000-0000-0000-0000-000000000001"}


async def test_a_function_that_fails_is_logged_once_and_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """The dimension is unknown, and the request goes on."""

    def fail(request: HTTPConnection) -> str:
        raise ValueError("secret")

    wrong: Any = lambda request: 0.5  # noqa: E731
    reader = RequestDimensions(max_body=100)
    for _ in range(3):
        assert await dimensions_of({"x": fail}, reader=reader) == {}
    assert caplog.messages == ["dimension 'x': its function failed with ValueError [RL503]"]
    assert await dimensions_of({"y": wrong}) == {}
    assert caplog.messages[1:] == ["dimension 'y': must be text or an integer, got float [RL503]"]
    assert all(record.levelno == logging.ERROR for record in caplog.records)


async def test_what_identify_tells_wins() -> None:
    """An empty value is none."""
    identity = Identity(token="t", dimensions={"tenant": "own", "id": ""})
    sources: dict[str, DimensionSource] = {"tenant": "path:tenant", "id": "path:id"}
    assert await dimensions_of(sources, identity=identity) == {"tenant": "own", "id": "7"}


async def test_a_body_that_is_too_large_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The dimension is unknown for it."""
    reader = RequestDimensions(max_body=100)
    body = json.dumps({"x": "y" * 100}).encode()
    for _ in range(2):
        assert await dimensions_of({"x": "json:x"}, body=body, reader=reader) == {}
    (line,) = caplog.messages
    assert "dimension 'x' is unknown for bodies of more than 100 bytes" in line


async def test_a_websocket_has_no_body() -> None:
    """Its other places have values."""
    sources: dict[str, DimensionSource] = {"x": "json:x", "id": "path:id"}
    assert await dimensions_of(sources, body=b'{"x": 1}', kind="websocket") == {"id": "7"}
