"""The answer to a refused request: a problem, or the app's own with the headers of the refusal."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi import HTTPException as FastAPIError
from fastapi import Request as FastAPIRequest
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from ratelimit import ConfigurationError, Decision, Limit, RateLimitMiddleware, RateLimitSettings, ResponseStyle

SETTINGS = RateLimitSettings(limits=[Limit(name="token", rate="1/minute", per="token")])
TOKEN = {"authorization": "Bearer t"}


def refused_by(app: Any, **options: Any) -> Any:
    """Return the second response to a caller with one request a minute."""
    app.add_middleware(RateLimitMiddleware, settings=SETTINGS, **options)
    client = TestClient(app)
    client.get("/", headers=TOKEN)
    return client.get("/", headers=TOKEN)


def app_of(**options: Any) -> Starlette:
    return Starlette(routes=[Route("/", lambda _: PlainTextResponse("ok"))], **options)


def sync_answer(request: Request, decision: Decision) -> Response:
    text = f"{request.state.identity.token}: {decision.binding.policy if decision.binding else ''}"
    return PlainTextResponse(text, 420, headers={"X-RateLimit-Limit": "mine"})


async def async_answer(request: Request, decision: Decision) -> Response:
    return sync_answer(request, decision)


@pytest.mark.parametrize("on_refused", [sync_answer, async_answer])
def test_the_apps_own_answer_gets_the_headers_of_the_refusal(on_refused: Any) -> None:
    """It knows the decision and the identity; a header that it has itself stays as it is."""
    refused = refused_by(app_of(), on_refused=on_refused)
    assert (refused.status_code, refused.text) == (420, "t: token")
    assert refused.headers["x-ratelimit-limit"] == "mine"
    assert "x-ratelimit-remaining" not in refused.headers, "a mixture would mislead"
    assert refused.headers["cache-control"] == "no-store"
    assert 1 <= int(refused.headers["retry-after"]) <= 61


@pytest.mark.parametrize(
    ("answer", "line"),
    [(lambda *_: 1 // 0, "on_refused failed"), (lambda *_: "no", "must return a Response or None, not str")],
)
def test_an_answer_that_fails_becomes_a_problem(answer: Any, line: str, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is never a 500; the log says what is wrong."""
    refused = refused_by(app_of(), on_refused=answer)
    assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
    assert line in caplog.text


def test_no_answer_is_the_usual_problem(caplog: pytest.LogCaptureFixture) -> None:
    """So a function may answer some requests alone."""
    refused = refused_by(app_of(), on_refused=lambda *_: None)
    assert refused.status_code == 429
    assert "on_refused" not in caplog.text


def test_the_apps_exception_handler_answers_around_the_whole_app_too() -> None:
    """`wrap` stands outside, where the request does not name the app yet; FastAPI's own `HTTPException` has one too."""
    app = FastAPI()

    @app.exception_handler(FastAPIError)
    async def handle(request: Request, error: FastAPIError) -> JSONResponse:
        return JSONResponse({"app": request.app.title, "class": type(error).__name__}, error.status_code)

    @app.get("/")
    async def root() -> None: ...

    client = TestClient(RateLimitMiddleware.wrap(app, settings=SETTINGS, on_refused="exception_handler"))
    client.get("/", headers=TOKEN)
    refused = client.get("/", headers=TOKEN)
    assert (refused.status_code, refused.json()) == (429, {"app": "FastAPI", "class": "HTTPException"})


def test_the_apps_exception_handler_answers_if_asked_for() -> None:
    """That for the status, or for `HTTPException`; an app without one gets the problem."""

    async def handle(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"mine": error.detail}, error.status_code)

    for key in (429, HTTPException):
        refused = refused_by(app_of(exception_handlers={key: handle}), on_refused="exception_handler")
        assert refused.status_code == 429
        assert refused.json()["mine"].startswith("You've exceeded")
        assert refused.headers["x-ratelimit-remaining"] == "0"
    assert "mine" not in refused_by(app_of(), on_refused="exception_handler").text


def test_a_handler_for_unexpected_errors_does_not_answer_refusals() -> None:
    """A refusal is not an error of the app."""

    async def broken(request: Request, error: Exception) -> Response:
        return PlainTextResponse("broken", 500)

    app = FastAPI(exception_handlers={Exception: broken})

    @app.get("/")
    async def root() -> None: ...

    assert refused_by(app, on_refused="exception_handler").status_code == 429


def test_fastapis_own_handler_answers_if_asked_for() -> None:
    """Its default for `HTTPException`, as for the errors that the app raises."""
    app = FastAPI()

    @app.get("/")
    async def root(request: FastAPIRequest) -> None: ...

    refused = refused_by(app, on_refused="exception_handler")
    assert set(refused.json()) == {"detail"}


@pytest.mark.parametrize("wrong", ["handler", 429])
def test_a_wrong_answer_fails_when_the_app_is_built(wrong: Any) -> None:
    """Not at the first refusal."""
    with pytest.raises(ConfigurationError, match="on_refused must be a function"):
        RateLimitMiddleware(app_of(), settings=SETTINGS, on_refused=wrong)


def test_without_headers_there_are_none() -> None:
    """`headers=[]` leaves the body, and `Retry-After`."""
    app = app_of()
    app.add_middleware(
        RateLimitMiddleware,
        settings=SETTINGS.model_copy(update={"response": ResponseStyle(headers=[], scope_header=False)}),
    )
    client = TestClient(app)
    first, refused = (client.get("/", headers=TOKEN) for _ in range(2))
    for response in (first, refused):
        assert not [name for name in response.headers if "ratelimit" in name]
    assert json.loads(refused.text)["status"] == 429
    assert "retry-after" in refused.headers


def test_around_the_whole_app_an_unhandled_error_has_the_headers_too() -> None:
    """The framework answers it outside of the middlewares that were added to the app."""

    def fail(request: Request) -> Response:
        raise ZeroDivisionError

    app = Starlette(routes=[Route("/", fail)])
    client = TestClient(RateLimitMiddleware.wrap(app, settings=SETTINGS), raise_server_exceptions=False)
    failed, refused = (client.get("/", headers=TOKEN) for _ in range(2))
    assert (failed.status_code, failed.headers["x-ratelimit-remaining"]) == (500, "0")
    assert refused.status_code == 429
