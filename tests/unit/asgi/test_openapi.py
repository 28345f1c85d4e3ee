"""`document_limits`: which limiters it finds, and what it says where there are none."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware

from ratelimit import ConfigurationError, Limit, Limiter, RateLimitMiddleware, RateLimitSettings, document_limits, limit

SETTINGS = RateLimitSettings(limits=[Limit(name="token", rate="5/minute", per="token")])
ORG = RateLimitSettings(limits=[Limit(name="org", rate="9/minute", per="org")])


def new_app() -> FastAPI:
    app = FastAPI()
    app.get("/x")(lambda: "x")
    return app


def names(app: Any) -> list[str]:
    return [each["name"] for each in document_limits(app)["paths"]["/x"]["get"].get("x-ratelimit", [])]


class OwnMiddleware(RateLimitMiddleware):
    pass


@pytest.mark.parametrize("kind", [RateLimitMiddleware, OwnMiddleware])
@pytest.mark.parametrize("options", [{"settings": SETTINGS}, {"limiter": Limiter(SETTINGS)}])
def test_the_settings_of_an_added_middleware_are_found(kind: Any, options: Any) -> None:
    """Before the first request, and among others, and however they were handed in."""
    app = new_app()
    app.add_middleware(kind, **options)
    app.add_middleware(GZipMiddleware)
    assert names(app) == ["token"]


def test_a_middleware_around_the_whole_app_is_found() -> None:
    """With those that were added to the app, each policy once."""
    app = new_app()
    app.add_middleware(RateLimitMiddleware, settings=SETTINGS)
    inner = RateLimitMiddleware.wrap(app, settings=SETTINGS)
    assert names(GZipMiddleware(RateLimitMiddleware.wrap(inner, settings=ORG))) == ["org", "token"]


def test_a_middleware_without_settings_has_the_decorators() -> None:
    """Its limiter has the default settings."""
    app = FastAPI()
    app.get("/x")(limit("5/minute", name="own")(lambda: "x"))
    app.add_middleware(RateLimitMiddleware)
    assert names(app) == ["own"]


def test_an_app_without_the_middleware_names_the_missing_line() -> None:
    """Nothing is limited there."""
    with pytest.raises(ConfigurationError, match=r"app\.add_middleware\(RateLimitMiddleware, settings=…\)"):
        document_limits(new_app())


@pytest.mark.parametrize("app", [Starlette(), RateLimitMiddleware.wrap(Starlette(), settings=SETTINGS), None])
def test_an_app_without_a_document_is_named(app: Any) -> None:
    """Starlette has no `openapi`."""
    with pytest.raises(ConfigurationError, match="needs a FastAPI app"):
        document_limits(app)


def test_a_wrong_decorator_fails_as_it_does_at_start() -> None:
    """With the endpoint's name."""
    app = FastAPI()
    app.get("/x")(limit("5/minute", per="tennant")(lambda: "x"))
    app.add_middleware(RateLimitMiddleware, settings=SETTINGS)
    with pytest.raises(ConfigurationError, match="GET /x: per: 'tennant'"):
        document_limits(app)
