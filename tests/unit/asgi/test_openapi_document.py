"""OpenAPI documents with limits: how they are merged, and how an app serves them."""

import gc
from copy import deepcopy
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ratelimit import Limit, RateLimitSettings, ResponseStyle
from ratelimit.asgi.openapi_document import LimitsDocumentation
from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.resolver.resolver import PolicyResolver

PROBLEM = {"$ref": "#/components/schemas/RateLimitProblem"}
LIMIT = Limit(name="token", rate="5/minute", per="token")


def app_with(document: Any = None) -> Any:
    """Return an app with one route, and with `openapi` where a document is given."""
    app: Any = Starlette(routes=[Route("/x", PlainTextResponse("x"), methods=["GET", "PUT"])])
    if document is not None:
        app.openapi = lambda: document
    return app


def documentation_of(
    app: Any, *, own: bool = False, style: ResponseStyle | None = None, limit: Limit = LIMIT
) -> LimitsDocumentation:
    settings = RateLimitSettings(limits=[limit], response=style or ResponseStyle())
    return LimitsDocumentation(app, EndpointMatcher(app, PolicyResolver(settings)), has_own_answers=own)


def document_with(responses: Any, **more: Any) -> Any:
    return {"openapi": "3.1.0", "paths": {"/x": {"get": {"responses": responses}}}, **more}


def added(responses: Any, *, components: Any = None, **options: Any) -> Any:
    """Return the responses of a document with the limits of an app, which is left unchanged, and repeatable."""
    document = document_with(responses, **({"components": components} if components else {}))
    before, app = deepcopy(document), app_with()
    found = documentation_of(app, **options).added_to(document, app)
    assert document == before
    assert documentation_of(app, **options).added_to(found, app) == found
    return found["paths"]["/x"]["get"]["responses"]


def test_responses_that_the_app_documents_are_kept() -> None:
    """Theirs are the description, the links and each header; ours are the headers that they lack."""
    own = {"description": "Slow down.", "headers": {"retry-after": {"schema": {}}}, "links": {"a": {}}}
    found = added({"429": own})["429"]
    assert (found["description"], found["links"]) == ("Slow down.", {"a": {}})
    assert found["headers"]["retry-after"] == {"schema": {}}
    assert "Retry-After" not in found["headers"]
    assert "X-RateLimit-Reset" in found["headers"]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"text/plain": {"schema": {"type": "string"}}}, {"schema": PROBLEM}),
        ({"application/problem+json": {"schema": {"a": 1}}}, {"schema": {"anyOf": [{"a": 1}, PROBLEM]}}),
        ({"application/problem+json": {"schema": {"anyOf": [1]}}}, {"schema": {"anyOf": [1, PROBLEM]}}),
        ({"application/problem+json": {"schema": {}}}, {"schema": {}}),
        ({"application/problem+json": {"example": 1}}, {"example": 1}),
    ],
)
def test_a_body_that_the_app_documents_is_an_alternative(own: Any, expected: Any) -> None:
    """In the same media type one of both; one that may be anything stays so; other media types stay as they are."""
    content = added({"429": {"description": "", "content": own}})["429"]["content"]
    assert content["application/problem+json"] == expected
    assert content.get("text/plain") == own.get("text/plain")


@pytest.mark.parametrize("wider", ["4XX", "default"])
def test_what_a_range_of_statuses_has_documented_is_kept(wider: str) -> None:
    """An entry of its own takes a status out of the range: so it has what the range had."""
    own = {"description": "Wrong.", "content": {"text/plain": {}}}
    found = added({wider: own})
    assert found[wider] == own
    assert set(found["429"]["content"]) == {"text/plain", "application/problem+json"}


def test_a_response_that_is_a_reference_is_extended_in_its_place() -> None:
    """The component is shared by others; a reference that leads nowhere stays as it is."""
    components = {"responses": {"Slow": {"description": "Slow down."}}}
    found = added({"429": {"$ref": "#/components/responses/Slow"}}, components=components)["429"]
    assert (found["description"], "headers" in found, "$ref" in found) == ("Slow down.", True, False)
    lost = {"$ref": "#/components/responses/Lost"}
    assert added({"429": lost})["429"] == lost


def test_successful_responses_have_headers_and_no_new_body() -> None:
    """Ranges and numbers too; others stay as they are."""
    found = added({"200": {"description": "ok"}, "2XX": {"description": "ok"}, "404": {"description": "none"}})
    assert [sorted(found[status]) for status in ("200", "2XX", "404")] == [
        ["description", "headers"],
        ["description", "headers"],
        ["description"],
    ]
    assert added({"200": {"description": "ok"}}, style=ResponseStyle(headers=[]))["200"] == {"description": "ok"}


def test_bodies_of_the_apps_own_answers_are_not_known() -> None:
    """Where `on_refused` answers: the headers are those of the refusal."""
    found = added({}, own=True)["429"]
    assert sorted(found) == ["description", "headers"]


def test_a_schema_of_the_apps_own_with_our_name_stays() -> None:
    """Ours takes another name then, the same one each time."""
    app, own = app_with(), {"schemas": {"RateLimitProblem": {"type": "string"}}}
    document = document_with({}, components=own)
    found = documentation_of(app).added_to(documentation_of(app).added_to(document, app), app)
    assert sorted(found["components"]["schemas"]) == ["RateLimitProblem", "RateLimitProblem_"]
    assert found["components"]["schemas"]["RateLimitProblem"] == {"type": "string"}
    content = found["paths"]["/x"]["get"]["responses"]["429"]["content"]
    assert content["application/problem+json"]["schema"]["$ref"].endswith("/RateLimitProblem_")


def test_everything_else_stays_as_it_is() -> None:
    """Paths that no route has, members of a path that are no operations, operations without limits."""
    app = app_with()
    shared = {"parameters": [], "x-own": 1, "put": {"responses": {}}}
    own = {"get": {"responses": {}, "x-ratelimit": "5 a minute"}}
    document = {"paths": {"/x": shared, "/none": own, "x-paths": 1}, "webhooks": {"a": {}}}
    limits = documentation_of(app, limit=Limit(name="get", rate="5/minute", methods="GET"))
    assert limits.added_to(document, app) == document


@pytest.mark.parametrize(("own", "kept"), [("5 a minute", ["5 a minute"]), ([{"name": "edge"}], [{"name": "edge"}])])
def test_what_the_app_says_of_its_limits_is_kept(own: Any, kept: Any) -> None:
    """Those of a gateway in front of it, for example, in whatever form."""
    app = app_with()
    document = {"paths": {"/x": {"get": {"responses": {}, "x-ratelimit": own}}}}
    once = documentation_of(app).added_to(document, app)
    listed = once["paths"]["/x"]["get"]["x-ratelimit"]
    assert [*listed[:-1]] == kept
    assert listed[-1]["name"] == "token"
    assert documentation_of(app).added_to(once, app) == once


class Holder:
    """Holds what a middleware would, as long as it lives."""

    def __init__(self, limits: LimitsDocumentation) -> None:
        self.limits = limits


def test_an_app_serves_the_limits_of_the_middlewares_that_live() -> None:
    """Each once; those that were made again, as by a test that freezes the limits, replace the ones before."""
    app = app_with(document_with({}))
    for _ in range(3):
        holder = Holder(documentation_of(app))
        holder.limits.serve(app)
    other = documentation_of(app, limit=Limit(name="other", rate="1/minute", per="ip"))
    other.serve(app)
    listed = app.openapi()["paths"]["/x"]["get"]["x-ratelimit"]
    assert [policy["name"] for policy in listed] == ["token", "other"]
    del holder
    gc.collect()
    assert [policy["name"] for policy in app.openapi()["paths"]["/x"]["get"]["x-ratelimit"]] == ["other"]


def test_an_app_whose_limits_cannot_be_added_serves_its_own_document(caplog: pytest.LogCaptureFixture) -> None:
    """The log says so, with the error."""
    document = {"paths": None}
    app = app_with(document)
    limits = documentation_of(app)
    limits.serve(app)
    assert app.openapi() is document
    assert [record.message[:28] for record in caplog.records] == ["the limits could not be adde"]
    assert caplog.records[0].exc_info is not None


def test_an_app_that_takes_no_other_document_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """A request is served, whatever the app that it is in looks like."""

    class Fixed:
        __slots__ = ()

        def openapi(self) -> Any: ...

    async def closed(scope: Any, receive: Any, send: Any) -> None: ...

    documentation_of(closed).serve(Fixed())
    documentation_of(app_with()).serve(Fixed())
    assert [record.message[:28] for record in caplog.records] == ["the limits could not be adde"] * 2


def test_apps_without_a_document_and_other_apps_stay_as_they_are() -> None:
    """Starlette has none; and a limiter inside of a mounted app is not asked what holds around it."""
    plain = app_with()
    documentation_of(plain).serve(plain)
    assert not hasattr(plain, "openapi")
    around = app_with(document_with({}))
    own = around.openapi
    documentation_of(app_with()).serve(around)
    documentation_of(app_with()).serve(None)
    assert around.openapi is own


def test_an_app_whose_routes_cannot_be_seen_has_no_limits_to_document() -> None:
    """The log of the matcher says so."""

    async def closed(scope: Any, receive: Any, send: Any) -> None: ...

    document = document_with({})
    assert documentation_of(closed).added_to(document, closed) is document
