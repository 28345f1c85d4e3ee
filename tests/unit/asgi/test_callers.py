"""Callers are identified whatever the app's own `identify` does."""

import json
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from ratelimit import Identity
from ratelimit.asgi.callers import Callers
from ratelimit.asgi.identify import unverified_identity

SCOPE = {"type": "http", "headers": [(b"authorization", b"Bearer t")], "client": ("192.0.2.1", 1)}


async def found(identify: Any) -> Identity:
    return await Callers(identify or unverified_identity(), unverified_identity()).identify(SCOPE)


async def test_the_apps_own_identify_is_asked() -> None:
    """Sync or async; `None` is an unknown caller, and without one the fallback tells."""

    async def later(connection: HTTPConnection) -> Identity:
        return Identity(org="o")

    assert await found(lambda _: Identity(org="o")) == Identity(org="o")
    assert await found(later) == Identity(org="o")
    assert await found(lambda _: None) == Identity()
    assert (await found(None)).token == "t"


async def test_a_failure_is_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """The caller is limited by its credential nevertheless."""

    def fail(connection: HTTPConnection) -> Identity:
        raise KeyError("secret")

    assert (await found(fail)).token == "t"
    assert (await found(lambda _: "acme")).token == "t"
    assert "identify failed (KeyError in test_callers.py, line" in caplog.messages[0]
    assert "identify failed (identify must return an Identity or None, not str)" in caplog.messages[1]
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("name", "value"), [("authorization", "Basic YTpi"), ("cookie", "sid=1")])
async def test_any_credential_counts_where_identify_fails(name: str, value: str) -> None:
    """Also one that is neither a bearer token nor an API key: two callers stay two."""

    def fail(connection: HTTPConnection) -> Identity:
        raise KeyError

    scope = {"type": "http", "headers": [(name.encode(), value.encode())], "client": ("192.0.2.1", 1)}
    assert await Callers(fail, unverified_identity()).identify(scope) == Identity(token=value, ip="192.0.2.1")


async def test_the_line_names_the_apps_own_code(caplog: pytest.LogCaptureFixture) -> None:
    """And not the library in which the error was raised."""
    await found(lambda _: json.loads("{"))
    assert "JSONDecodeError in test_callers.py, line" in caplog.text
