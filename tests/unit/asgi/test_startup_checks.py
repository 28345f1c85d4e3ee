"""Startup checks: settings that can never apply are logged once, when the app starts."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Route
from starlette.testclient import TestClient

from ratelimit import Identity, RateLimitMiddleware, RateLimitSettings, limit
from tests.support.asgi import ok


def log_of(caplog: pytest.LogCaptureFixture, app: Any, identify: Any = None, **settings: Any) -> list[str]:
    """Return the log of an app with these settings while it starts and serves."""
    caplog.clear()
    app.add_middleware(RateLimitMiddleware, settings=RateLimitSettings.model_validate(settings), identify=identify)
    with TestClient(app) as client:
        client.get("/items/1")
        client.get("/items/2")
    return caplog.messages


def items() -> Starlette:
    return Starlette(routes=[Route("/items/{id}", ok), Route("/healthz", ok, methods=["GET"])])


TOKEN = {"name": "t", "rate": "5/minute", "per": "token"}


def identify_nothing(connection: HTTPConnection) -> Identity:
    return Identity()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"limits": [{**TOKEN, "paths": ["/itms/{id}"]}]}, "limit 't': path '/itms/{id}' matches no route"),
        ({"limits": [{**TOKEN, "paths": ["/items/1"]}]}, "limit 't': path '/items/1' matches no route"),
        ({"limits": [{**TOKEN, "methods": ["GTE"]}]}, "limit 't': no route has the method GTE"),
        ({"limits": [TOKEN], "exempt": ["GET /healtz"]}, "exempt 'GET /healtz' matches no route"),
        ({"limits": [TOKEN], "exempt": ["POST /healthz"]}, "exempt 'POST /healthz' matches no route"),
        ({"limits": [TOKEN], "responses": [(["/v9/*"], {})]}, "responses: '/v9/*' matches no route"),
        ({}, "no request is limited"),
    ],
)
def test_settings_that_can_never_apply_are_logged(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], expected: str
) -> None:
    """A path, method or exemption that matches no route, and settings without limits, are one line each."""
    (message,) = log_of(caplog, items(), identify_nothing, **settings)
    assert message.startswith(expected)


def test_a_dimension_that_the_default_identify_does_not_know(caplog: pytest.LogCaptureFixture) -> None:
    """Limits by organization need an `identify` that knows organizations."""
    (message,) = log_of(caplog, items(), limits=[{**TOKEN, "per": ["org", "endpoint"]}])
    assert message == "limit 't' never applies: no identity has org; hand in an identify that does [RL602]"


def test_decorators_that_need_an_identify_are_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    """A limit on an endpoint is logged once for all of its methods."""
    app = FastAPI()
    app.api_route("/items/{n}", methods=["GET", "PUT"])(limit("5/minute", per="org", name="items")(lambda n: n))
    (message,) = log_of(caplog, app)
    assert message.startswith("limit 'items' never applies")


def test_settings_that_apply_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log stays empty where everything can apply."""
    limits = [
        TOKEN,
        {**TOKEN, "name": "ip", "per": "ip"},
        {**TOKEN, "name": "i", "paths": ["/items/{id}", "/items/*"], "methods": ["GET", "POST"]},
    ]
    assert log_of(caplog, items(), limits=limits, exempt=["GET /healthz", "/healthz"]) == []
    app = FastAPI()
    app.get("/items/{n}")(limit("5/minute")(lambda n: n))
    assert log_of(caplog, app) == []


def test_a_quota_that_all_callers_share_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Without `per` a quota belongs to the service, and its refusals name no quota."""
    quota = {"name": "q", "limit": 10**6, "period": "day"}
    (message,) = log_of(caplog, items(), quotas=[quota])
    assert message == "quota 'q' is shared by all callers, since per is empty: it is answered as capacity [RL601]"
