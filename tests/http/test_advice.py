"""What is probably not meant is said once, when the app starts."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Route
from starlette.testclient import TestClient

from ratelimit import Identity, RateLimitMiddleware, RateLimitSettings, limit
from tests.support.asgi import ok


def advice(caplog: pytest.LogCaptureFixture, app: Any, identify: Any = None, **settings: Any) -> list[str]:
    """Return what the log says while an app with these settings starts and serves."""
    caplog.clear()
    app.add_middleware(RateLimitMiddleware, settings=RateLimitSettings.model_validate(settings), identify=identify)
    with TestClient(app) as client:
        client.get("/items/1")
        client.get("/items/2")
    return caplog.messages


def items() -> Starlette:
    return Starlette(routes=[Route("/items/{id}", ok), Route("/healthz", ok, methods=["GET"])])


TOKEN = {"name": "t", "rate": "5/minute", "per": "token"}


def anybody(connection: HTTPConnection) -> Identity:
    return Identity()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"limits": [{**TOKEN, "paths": ["/itms/{id}"]}]}, "limit 't': path '/itms/{id}' fits no route"),
        ({"limits": [{**TOKEN, "paths": ["/items/1"]}]}, "limit 't': path '/items/1' fits no route"),
        ({"limits": [{**TOKEN, "methods": ["GTE"]}]}, "limit 't': no route has the method GTE"),
        ({"limits": [TOKEN], "exempt": ["GET /healtz"]}, "exempt 'GET /healtz' fits no route"),
        ({"limits": [TOKEN], "exempt": ["POST /healthz"]}, "exempt 'POST /healthz' fits no route"),
        ({"limits": [TOKEN], "responses": [(["/v9/*"], {})]}, "responses: '/v9/*' fits no route"),
        ({}, "nothing is limited"),
    ],
)
def test_settings_that_can_never_apply_are_told(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], said: str
) -> None:
    """A path, method or exemption that fits no route, and a limiter without limits: one line each."""
    (message,) = advice(caplog, items(), anybody, **settings)
    assert message.startswith(said)


def test_a_dimension_that_the_default_identify_does_not_know(caplog: pytest.LogCaptureFixture) -> None:
    """Limits by organization need an identify that knows organizations."""
    (message,) = advice(caplog, items(), limits=[{**TOKEN, "per": ["org", "endpoint"]}])
    assert message == "limit 't' never applies: nobody has org, hand in an identify that knows"


def test_decorators_that_need_an_identify_are_told_too(caplog: pytest.LogCaptureFixture) -> None:
    """The same for a limit on an endpoint, once for all of its methods."""
    app = FastAPI()
    app.api_route("/items/{n}", methods=["GET", "PUT"])(limit("5/minute", per="org", name="items")(lambda n: n))
    (message,) = advice(caplog, app)
    assert message.startswith("limit 'items' never applies")


def test_sound_settings_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said where everything can apply."""
    limits = [TOKEN, {**TOKEN, "name": "i", "paths": ["/items/{id}", "/items/*"], "methods": ["GET", "POST"]}]
    assert advice(caplog, items(), limits=limits, exempt=["GET /healthz", "/healthz"]) == []
    app = FastAPI()
    app.get("/items/{n}")(limit("5/minute")(lambda n: n))
    assert advice(caplog, app) == []
