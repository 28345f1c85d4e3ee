"""Lost decorators: a limit whose function is not the one that is served fails or is logged at start."""

import functools
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ratelimit import ConfigurationError, limit
from ratelimit.asgi.routing.lost_decorators import find_lost_decorators
from tests.unit.asgi.routing.lookups import limited_names, matcher_of


def traced(function: Any) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Response:
        response: Response = await function(*args, **kwargs)
        return response

    return wrapper


def narrow(function: Any) -> Any:
    async def wrapper(request: Request) -> Response:
        response: Response = await function(request)
        return response

    return wrapper


class Traced:
    def __init__(self, function: Any) -> None:
        self.function = function

    async def __call__(self, request: Request) -> Response:
        response: Response = await self.function(request)
        return response


def plain_view() -> Any:
    async def slow(request: Request) -> Response:
        return PlainTextResponse("slow")

    return slow


def limited_view() -> Any:
    return limit("1/minute")(plain_view())


def build(*endpoints: Any) -> None:
    """Read the routes of an app that serves these endpoints."""
    routes = [Route(f"/{n}", endpoint) for n, endpoint in enumerate(endpoints)]
    matcher_of(Starlette(routes=routes)).read_routes()


@pytest.mark.parametrize(
    "hide",
    [
        lambda: traced(limited_view()),
        lambda: traced(traced(limited_view())),
        lambda: type("Items", (HTTPEndpoint,), {"get": traced(limited_view())}),
    ],
    ids=["once", "twice", "method"],
)
def test_a_wrapper_that_hides_a_limit_fails_at_start(hide: Any) -> None:
    """A wrapper that takes any arguments and carries no limit would lose it silently; the error names the function."""
    with pytest.raises(ConfigurationError, match="slow has no effect"):
        build(hide())


@pytest.mark.parametrize("hide", [narrow, Traced])
def test_a_limit_that_is_probably_lost_is_logged(caplog: pytest.LogCaptureFixture, hide: Any) -> None:
    """Where the loss may be intended, as with an endpoint that calls another one, the app starts and the log says so."""
    build(hide(limited_view()))
    assert ["slow probably has no effect" in message for message in caplog.messages] == [True]


def test_a_limit_on_a_wrapper_above_the_route_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """`@limit` above a wrapper above the route decorator limits nothing: the app serves the function below it."""
    app = FastAPI()

    @limit("1/minute")
    @traced
    @app.get("/x")
    async def served() -> str:
        return "x"

    matcher_of(app).read_routes()
    assert ["wrapper probably has no effect" in message for message in caplog.messages] == [True]
    assert callable(served)


def test_an_endpoint_may_call_a_limited_one(caplog: pytest.LogCaptureFixture) -> None:
    """A function that calls a limited endpoint which is served itself hides no limit, and the log stays empty."""

    @limit("1/minute")
    async def inner(request: Request) -> Response:
        return PlainTextResponse("inner")

    async def outer(request: Request) -> Response:
        return await inner(request)

    app = Starlette(routes=[Route("/inner", inner), Route("/outer", outer)])
    matcher_of(app).read_routes()
    assert caplog.messages == []


def test_correct_apps_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Factories, feature flags, partials, wrappers by `functools.wraps` and endpoints that call each other are fine."""

    def auth(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapper

    handler = plain_view()
    first = limit("1/minute")(auth(handler))
    build(first)
    build(handler)  # The same handler, unlimited, in a second app.
    answer = auth(limited_view())

    async def batch(request: Request) -> Any:
        return await answer(request)

    part = functools.partial(limited_view())

    async def calls_part(request: Request) -> Any:
        return await part(request)

    build(batch, answer)
    build(part, calls_part)
    assert caplog.messages == []


@pytest.mark.parametrize("slots", [True, False])
def test_any_callable_object_can_be_limited(*, slots: bool) -> None:
    """Objects that cannot be hashed or weakly referenced are endpoints too."""

    class Unhashable:
        __slots__ = ("__ratelimit__",) if slots else ("__dict__",)
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    endpoint = limit("1/minute", name="object")(Unhashable())
    assert limited_names(Starlette(routes=[Route("/o", endpoint)]), "/o") == ["object"]


def test_a_lost_decorator_is_found_with_its_certainty() -> None:
    """It is certain that a limit is lost where the served wrapper takes any arguments, as wrappers do."""
    inner = limited_view()
    assert list(find_lost_decorators([traced(inner)])) == [(inner, True)]
    assert list(find_lost_decorators([narrow(inner)])) == [(inner, False)]
    assert list(find_lost_decorators([inner, traced(inner)])) == []
