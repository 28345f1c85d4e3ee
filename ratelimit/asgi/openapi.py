"""`document_limits`: the OpenAPI document of an app, with its limits, before the first request too."""

from collections.abc import Iterator
from typing import Any, Final

from ratelimit.asgi.middleware import RateLimitMiddleware
from ratelimit.asgi.openapi_document import LimitsDocumentation
from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.config.settings import RateLimitSettings
from ratelimit.errors import ConfigurationError
from ratelimit.resolver.resolver import PolicyResolver

_MAX_LAYERS: Final = 100


def document_limits(app: Any) -> dict[str, Any]:
    """Return the OpenAPI document of a FastAPI app (`app.openapi()`) with what its `RateLimitMiddleware` adds.

    Each limited operation gets the responses that the limiter may make there (429, 403, 503), with the headers and the
    schema of the body of the style that holds there; the headers of its successful responses; and `x-ratelimit`, a list of
    its policies. Policies that are exempted, manual, shadow, or give way there are not listed. Responses that the app
    documents itself are extended. Operations without limits stay as they are.

    Works before the first request, once all routes and the middleware are added, and connects to nothing. An app without
    the middleware, or without `openapi`, raises `ConfigurationError`; so does a decorator that cannot work.
    """
    documented, found = _documented_app(app)
    if not found:
        raise ConfigurationError(
            "document_limits: the app has no limits to document: write "
            "app.add_middleware(RateLimitMiddleware, settings=…) [RL209]"
        )
    document: dict[str, Any] = documented.openapi()
    for documentation in found:
        document = documentation.added_to(document, documented)
    return document


def _documented_app(app: Any) -> tuple[Any, list[LimitsDocumentation]]:
    """Return the app that has a document, and what each limiter around it adds, the outermost first."""
    found: list[LimitsDocumentation] = []
    for _ in range(_MAX_LAYERS):
        if callable(getattr(app, "openapi", None)):
            return app, [*found, *_added_limiters(app)]
        if isinstance(app, RateLimitMiddleware):
            found.append(app.documentation)
        app = getattr(app, "app", None)
    raise ConfigurationError("document_limits needs a FastAPI app: there is no `openapi` to call [RL209]")


def _added_limiters(app: Any) -> Iterator[LimitsDocumentation]:
    for each in getattr(app, "user_middleware", ()):
        if isinstance(each.cls, type) and issubclass(each.cls, RateLimitMiddleware):
            limiter, settings = each.kwargs.get("limiter"), each.kwargs.get("settings")
            settings = settings if limiter is None else limiter.settings
            matcher = EndpointMatcher(app, PolicyResolver(settings or RateLimitSettings()))
            yield LimitsDocumentation(app, matcher, has_own_answers=each.kwargs.get("on_refused") is not None)
